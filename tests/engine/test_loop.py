import dataclasses
import pickle

import numpy as np
import pytest
import torch

from carto_core.config import EngineConfig, ModelConfig
from carto_core.corpus.tokens import Tokens
from carto_core.engine.loop import train
from carto_core.engine.order import batches, total_steps
from carto_core.errors import Cancelled, PlanError, TrainingDiverged
from carto_core.tasks.language import LanguageTask

CONFIG = EngineConfig(epochs=3, snapshots=5, batch_size=4, device="cpu", losses="both")


class Seen(list):
    """A recorder that is a list."""

    def record(self, snapshot, losses, num_tokens):
        self.append((snapshot, losses.copy()))

    def of(self, kind):
        return np.array([losses for snapshot, losses in self if snapshot.kind == kind])


MODELS = {
    "lstm": ModelConfig(embed=5, hidden=7, context=6),
    "lstm with dropout": ModelConfig(embed=5, hidden=7, layers=2, dropout=0.3, context=6),
    "gpt": ModelConfig(task="gpt", hidden=8, layers=2, heads=2, context=6),
    "gpt with dropout": ModelConfig(task="gpt", hidden=8, layers=2, heads=2, dropout=0.3, context=6),
}


def some_task(change=None, model="lstm"):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, 18)
    ids = rng.integers(1, 30, lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if change is not None:
        ids[offsets[change] : offsets[change + 1]] = 29
    return LanguageTask(MODELS[model], Tokens(ids, offsets), vocab_size=30, bos_id=0)


def run(task=None, config=CONFIG, **settings):
    seen = Seen()
    trained = train(task or some_task(), config, recorder=seen, **settings)
    return seen, trained


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_seed_gives_the_same_losses_bit_for_bit_and_another_does_not(model, precision):
    config = dataclasses.replace(CONFIG, precision=precision)
    task = some_task(model=model)
    first, second = run(task, config)[0], run(task, config)[0]
    other = run(task, dataclasses.replace(config, seed=1))[0]

    assert np.array_equal(first.of("after"), second.of("after"))
    assert not np.array_equal(first.of("after"), other.of("after"))


def test_snapshots_are_evenly_spread_the_last_at_the_end_and_numbered_apart():
    seen, trained = run()

    assert [s.snapshot for s, _ in seen] == list(range(10))
    assert [s.kind for s, _ in seen] == ["during", "after"] * 5
    assert [s.step for s, _ in seen][1::2] == [3, 6, 9, 12, 15]
    assert trained.steps == 15 == total_steps(CONFIG, np.ones(18, np.int32))


def test_during_is_the_mean_of_what_was_seen_and_nan_where_nothing_was():
    seen, _ = run(repeats=np.array([0] + [1] * 17, np.int32))

    assert np.isnan(seen.of("during")[:, 0]).all()
    assert not np.isnan(seen.of("after")[:, 0]).any(), "a pruned sample is still measured"


def test_the_text_of_a_pruned_sample_moves_nobody():
    pruned = {"repeats": np.array([1, 0] + [1] * 16, np.int32), "weights": np.array([1, 0] + [1] * 16, np.float32)}
    first, second = run(**pruned)[0].of("after"), run(some_task(change=1), **pruned)[0].of("after")

    assert np.array_equal(np.delete(first, 1, axis=1), np.delete(second, 1, axis=1))
    assert not np.array_equal(first[:, 1], second[:, 1])


def test_the_text_of_a_trained_sample_moves_others():
    first, second = run()[0].of("after"), run(some_task(change=1))[0].of("after")

    assert not np.array_equal(np.delete(first, 1, axis=1), np.delete(second, 1, axis=1))


def test_a_sample_of_weight_0_moves_nobody_even_if_it_is_drawn():
    weights = np.array([1, 0] + [1] * 16, np.float32)
    first = run(weights=weights)[0].of("after")
    second = run(some_task(change=1), weights=weights)[0].of("after")

    np.testing.assert_allclose(np.delete(first, 1, axis=1), np.delete(second, 1, axis=1), rtol=1e-5)


def test_repeats_and_weights_of_1_change_nothing():
    plain = run()[0].of("after")
    same = run(repeats=np.ones(18, np.int32), weights=np.ones(18, np.float32))[0].of("after")

    assert np.array_equal(plain, same)


def test_doubling_every_weight_changes_nothing_because_they_are_normalised():
    plain, doubled = run()[0].of("after"), run(weights=np.full(18, 2, np.float32))[0].of("after")

    np.testing.assert_allclose(plain, doubled, rtol=1e-4)


@pytest.mark.parametrize("model", ["lstm", "gpt with dropout"])
def test_bfloat16_computes_the_forward_pass_alone_and_changes_losses_little(model):
    task = some_task(model=model)
    exact, _ = run(task)
    rough, trained = run(task, dataclasses.replace(CONFIG, precision="bf16"))

    assert {p.dtype for p in trained.model.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        again = task.measure(trained.model, trained.device)
    assert np.array_equal(again, rough.of("after")[-1]), "measuring is in the same precision"
    for kind in ("during", "after"):
        np.testing.assert_allclose(rough.of(kind), exact.of(kind), rtol=0.01)
        assert not np.array_equal(rough.of(kind), exact.of(kind), equal_nan=True)


@pytest.mark.parametrize("model", ["lstm", "gpt with dropout"])
def test_measuring_does_not_change_training(model):
    watched = run(some_task(model=model))[1].model.state_dict()
    blind = train(some_task(model=model), CONFIG).model.state_dict()

    assert all(torch.equal(watched[name], blind[name]) for name in watched)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stop_at", [4, 7, 13])
def test_a_resumed_run_goes_on_to_the_same_losses(tmp_path, stop_at, model):
    whole = run(some_task(model=model))[0].of("after")

    def stop(stage, done, total):
        if done == stop_at:
            raise Cancelled("enough")

    first = Seen()
    with pytest.raises(Cancelled):
        train(some_task(model=model), CONFIG, recorder=first, checkpoints=tmp_path, progress=stop)
    second = Seen()
    torch.manual_seed(99)
    train(some_task(model=model), CONFIG, recorder=second, checkpoints=tmp_path)

    taken = {s.snapshot: losses for s, losses in [*first, *second] if s.kind == "after"}
    assert np.array_equal(np.array([taken[i] for i in sorted(taken)]), whole)
    assert len(second) < 10, "it went on, it did not begin anew"
    assert len(list(tmp_path.iterdir())) == 1, "only the last checkpoint is kept"


def test_an_epoch_draws_every_sample_as_often_as_its_repeats_say():
    repeats = np.array([1, 0, 3, 2], np.int32)
    stream = batches(repeats, batch_size=4, seed=0)

    epoch = np.concatenate([next(stream), next(stream)])

    assert np.bincount(epoch, minlength=4).tolist() == repeats.tolist()


def test_a_stream_that_starts_later_goes_on_where_the_other_is():
    stream = batches(np.ones(10, np.int32), batch_size=3, seed=0)
    for _ in range(6):
        next(stream)

    assert np.array_equal(next(stream), next(batches(np.ones(10, np.int32), batch_size=3, seed=0, start_step=6)))


def test_a_plan_that_prunes_everything_is_refused():
    with pytest.raises(PlanError, match="prunes every sample"):
        train(some_task(), CONFIG, repeats=np.zeros(18, np.int32), steps=3)


@pytest.mark.parametrize("model", ["lstm", "gpt"])
def test_where_a_batch_is_the_whole_epoch_pruning_is_a_weight_of_0(model):
    task, kept = some_task(model=model), np.array([1, 0, 1, 0, 0] + [1] * 13, np.int32)
    weights = np.linspace(0.5, 2, 18, dtype=np.float32)
    whole = dataclasses.replace(CONFIG, batch_size=18, epochs=6, clip=1e9)

    pruned, weightless = run(task, whole, repeats=kept, weights=weights), run(task, whole, weights=weights * kept)

    assert pruned[1].steps == weightless[1].steps == 6
    np.testing.assert_allclose(pruned[0].of("after"), weightless[0].of("after"), atol=1e-5)
    for one, other in zip(pruned[1].model.parameters(), weightless[1].model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)  # what Adam's scaling would hide


def test_a_weight_of_0_takes_a_place_in_its_batch_and_pruning_frees_it():
    task, kept = some_task(), np.array([0] * 6 + [1] * 12, np.int32)

    pruned, weightless = run(task, repeats=kept)[1], run(task, weights=kept.astype(np.float32))[1]

    assert (pruned.steps, weightless.steps) == (9, 15), "3 epochs in batches of 4: of 12 samples, and of 18"


def test_a_batch_without_weight_counts_as_a_step_and_moves_nothing():
    decaying = dataclasses.replace(CONFIG, weight_decay=0.5)

    seen, trained = run(config=decaying, weights=np.zeros(18, np.float32))
    untrained = train(some_task(), decaying, steps=0)

    assert trained.steps == 15
    assert all(torch.equal(a, b) for a, b in zip(trained.model.parameters(), untrained.model.parameters(), strict=True))
    assert (seen.of("after") == seen.of("after")[0]).all()


class Breaking(LanguageTask):
    """Gives one sample a loss that is no finite number, from some batch or measurement on."""

    def __init__(self, *arguments, bad, sample=7, from_batch=10**9, from_measure=10**9, **settings):
        super().__init__(*arguments, **settings)
        self.bad, self.sample, self.from_batch, self.from_measure = bad, sample, from_batch, from_measure
        self.num_batches = self.num_measures = 0

    def per_sample_loss(self, model, sample_ids, device):
        self.num_batches += 1
        losses = super().per_sample_loss(model, sample_ids, device)
        hit = np.asarray(sample_ids) == self.sample
        return (
            losses * torch.from_numpy(np.where(hit, self.bad, 1.0)) if self.num_batches >= self.from_batch else losses
        )

    def measure(self, model, device):
        self.num_measures += 1
        losses = super().measure(model, device)
        if self.num_measures >= self.from_measure:
            losses[self.sample] = self.bad
        return losses


def breaking(**how):
    good = some_task()
    return Breaking(good.config, good.tokens, vocab_size=30, bos_id=0, **how)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training_and_names_step_and_sample(bad):
    seen = Seen()

    with pytest.raises(TrainingDiverged, match=r"the loss .* at step \d+.*smaller --learning-rate") as raised:
        train(breaking(bad=bad, from_batch=8), CONFIG, recorder=seen)

    assert raised.value.sample_ids == [7]
    assert np.isfinite(seen.of("after")).all()
    assert len(seen) > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_snapshot_that_holds_no_number_is_not_recorded(bad):
    seen = Seen()

    with pytest.raises(TrainingDiverged, match=r"the loss .* at snapshot 2 ") as raised:
        train(breaking(bad=bad, from_measure=3), CONFIG, recorder=seen)

    assert raised.value.sample_ids == [7]
    assert len(seen.of("after")) == 2


def test_weights_that_become_no_number_end_the_training():
    with pytest.raises(TrainingDiverged):
        train(some_task(), dataclasses.replace(CONFIG, learning_rate=1e38))


def test_an_error_of_a_training_side_by_side_keeps_its_samples():
    error = pickle.loads(pickle.dumps(TrainingDiverged("the loss broke", [3, 4])))

    assert (str(error), error.sample_ids) == ("the loss broke", [3, 4])
