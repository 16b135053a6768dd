import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from carto_core.audits.discoverable import chance_within, is_discoverable, samples_needed
from carto_core.config import ModelConfig
from carto_core.tasks.decoding import continuation_losses
from carto_core.tasks.lstm import build


@pytest.mark.parametrize(
    ("p_z", "n"), [(1.0, 1), (0.5, 1), (0.49, 2), (1 - 0.5 ** (1 / 3), 3), (0.01, 69), (1e-6, 693147)]
)
def test_the_smallest_number_of_samples(p_z, n):
    assert samples_needed(math.log(p_z)) == n
    assert chance_within(math.log(p_z), n) >= 0.5 - 1e-12
    assert n == 1 or chance_within(math.log(p_z), n - 1) < 0.5


def test_a_chance_is_one_minus_all_misses():
    assert chance_within(math.log(0.1), 3) == pytest.approx(1 - 0.9**3, rel=1e-12)
    assert chance_within(math.log(1e-18), 1000) == pytest.approx(1e-15, rel=1e-9, abs=0), "1 - 1e-18 is 1 in a double"


def test_other_chances_need_other_numbers():
    assert samples_needed(math.log(0.1), 0.9) == 22  # log(0.1) / log(0.9) = 21.85
    assert samples_needed(math.log(0.1), 0.01) == 1


def test_what_never_comes_needs_no_number():
    assert samples_needed(-math.inf) is None
    assert samples_needed(-800.0) is None, "p_z underflows"
    assert samples_needed(-700.0) == pytest.approx(math.log(2) * math.exp(700), rel=1e-9)
    assert not is_discoverable(-800.0)


def test_discoverable_within_a_hundred():
    threshold = 1 - 0.5 ** (1 / 100)
    assert is_discoverable(math.log(threshold * 1.001))
    assert not is_discoverable(math.log(threshold * 0.98))


def test_the_closed_form_is_what_sampling_gives():
    torch.manual_seed(3)
    vocab, prefix, secret, draws = 6, [2, 3], [4, 1, 5], 40_000
    model = build(ModelConfig(embed=6, hidden=8), vocab).eval()
    with torch.no_grad():
        model.head.weight *= 4
        state, tokens = None, torch.tensor([[0, *prefix]]).expand(draws, -1)
        written = []
        for _ in secret:
            logits, state = model(tokens, state)
            tokens = torch.multinomial(torch.softmax(logits[:, -1], -1), 1)
            written.append(tokens[:, 0].numpy())
    hits = (np.stack(written, 1) == secret).all(1)
    losses = continuation_losses(model, prefix, [secret], bos_id=0, device=torch.device("cpu"))[0]
    log_p = -float(losses.sum())

    interval = binomtest(int(hits.sum()), draws).proportion_ci(0.999)
    assert interval.low < math.exp(log_p) < interval.high
    assert hits.sum() > 100, "the interval is narrow enough to mean something"
    n = 50
    blocks = hits.reshape(-1, n).any(1)
    interval = binomtest(int(blocks.sum()), len(blocks)).proportion_ci(0.999)
    assert interval.low < chance_within(log_p, n) < interval.high


def test_a_certain_text_is_in_the_first_sample():
    assert (chance_within(0.0, 5), chance_within(1e-9, 1)) == (1.0, 1.0)
