import threading

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

import carto_core
from carto_core.errors import ConfigError
from carto_core.integrations.watching import watching, watching_losses
from carto_core.store.reader import open_run
from tests.integrations.test_sample_losses import slow_twin


def batch(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(4, 7, 11, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(0, 11, (4, 7), generator=generator)
    labels[1, 3:] = labels[2] = -100
    return logits, labels


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("layout", ["flat", "classes second"])
def test_a_watched_cross_entropy_and_its_gradient_are_the_plain_ones_to_the_last_bit(reduction, layout):
    def loss_of(logits, labels):
        if layout == "flat":
            return functional.cross_entropy(logits.view(-1, 11), labels.view(-1), reduction=reduction)
        return nn.CrossEntropyLoss(reduction=reduction)(logits.transpose(1, 2), labels)

    logits, labels = batch()
    plain = loss_of(logits, labels)
    plain.backward()
    watched_logits, _ = batch()

    with watching_losses() as seen:
        watched = loss_of(watched_logits, labels)
    watched.backward()

    torch.testing.assert_close(watched, plain, rtol=1e-6, atol=0)
    assert torch.equal(watched_logits.grad, logits.grad)
    losses, num_tokens = seen.sample_losses(None, num_samples=4)
    shifted = torch.cat([torch.full((4, 1), -100), labels], dim=1)
    expected, counts = slow_twin(nn.functional.pad(logits, (0, 0, 0, 1)), shifted)
    torch.testing.assert_close(losses, torch.tensor(expected), rtol=1e-5, atol=0, equal_nan=True)
    assert num_tokens.tolist() == counts


@pytest.mark.parametrize(
    "settings",
    [{"label_smoothing": 0.1}, {"weight": torch.arange(1.0, 12.0)}, {"reduction": "none"}],
)
def test_a_cross_entropy_that_is_no_plain_mean_is_left_as_it_is_and_refused(settings):
    logits, labels = batch()

    with watching_losses() as seen:
        watched = functional.cross_entropy(logits.view(-1, 11), labels.view(-1), **settings)

    assert torch.equal(watched, functional.cross_entropy(logits.view(-1, 11), labels.view(-1), **settings))
    with pytest.raises(ConfigError, match="no sample's loss is known"):
        seen.sample_losses(None, num_samples=4)


def test_threads_watch_each_its_own_and_leave_torch_as_it_was():
    plain = torch._C._nn.cross_entropy_loss
    logits, labels = batch()
    entered, left = threading.Event(), threading.Event()
    counts = {}

    def other():
        with watching_losses() as seen:
            entered.set()
            left.wait(10)
            cross_entropy(logits.view(-1, 11), labels.view(-1))
            counts["other"] = len(seen.tokens.seen)

    thread = threading.Thread(target=other)
    with watching_losses() as seen:
        thread.start()
        entered.wait(10)
        cross_entropy(logits.view(-1, 11), labels.view(-1))
        cross_entropy(logits.view(-1, 11), labels.view(-1))
    left.set()
    thread.join()

    assert (len(seen.tokens.seen), counts) == (2, {"other": 1})
    assert torch._C._nn.cross_entropy_loss is plain


def test_tokens_that_do_not_lie_sample_by_sample_are_refused():
    logits, labels = batch()

    with watching_losses() as seen:
        functional.cross_entropy(logits.permute(1, 2, 0), labels.T)

    with pytest.raises(ConfigError, match="no sample's loss is known"):
        seen.sample_losses(None, num_samples=4)


def test_rows_that_hold_several_samples_are_refused():
    class Model(nn.Module):
        def forward(self, logits):
            return {"logits": logits}

    logits, labels = batch()
    with watching(Model()) as seen:
        model_output = Model()(logits)

    seen.outputs.append(model_output)
    with pytest.raises(ConfigError, match="saw 4 rows for 8 samples"):
        seen.sample_losses(labels, num_samples=8)


def test_a_loop_whose_step_is_watched_is_recorded_as_one_that_logs(tmp_path):
    logits, labels = batch()
    with carto_core.record(tmp_path / "logged") as rec:
        rec.log([*"abcd"], *carto_core.per_sample_loss(logits, labels, shifted=True))

    with carto_core.record(tmp_path / "watched") as watched, watched.watch([*"abcd"]):
        functional.cross_entropy(logits.view(-1, 11), labels.view(-1)).backward()

    tables = [open_run(tmp_path / name) for name in ("logged", "watched")]
    assert watched.failure is None
    assert tables[0].samples().equals(tables[1].samples())
    torch.testing.assert_close(*(torch.tensor(run.trajectories("during")) for run in tables), rtol=1e-6, atol=0)


def test_a_step_in_which_nothing_can_be_seen_ends_the_recording_and_not_the_loop(tmp_path):
    steps = 0

    with carto_core.record(tmp_path / "mine") as rec:
        for _ in range(2):
            with rec.watch(["a"]):
                steps += 1

    assert steps == 2
    assert "no sample's loss is known" in rec.failure


def test_a_compiled_step_cannot_be_seen_and_ends_the_recording_and_not_the_loop(tmp_path):
    logits, labels = batch()
    step = torch.compile(lambda x, y: functional.cross_entropy(x.view(-1, 11), y.view(-1)), backend="eager")

    with carto_core.record(tmp_path / "mine") as rec, rec.watch([*"abcd"]):
        loss = step(logits, labels)

    torch.testing.assert_close(loss, functional.cross_entropy(logits.view(-1, 11), labels.view(-1)))
    assert "no sample's loss is known" in rec.failure
