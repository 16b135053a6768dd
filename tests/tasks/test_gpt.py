import math

import numpy as np
import pytest
import torch

from carto_core.config import GPT2_VOCAB_SIZE, ModelConfig
from carto_core.errors import ConfigError
from carto_core.tasks import model_config
from carto_core.tasks.gpt import build

VOCAB = 11
CONFIG = ModelConfig(task="gpt", hidden=12, layers=2, heads=3, context=9)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = build(CONFIG, VOCAB).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.4)
    return made


def slow_scores(model, ids):
    """The architecture written out in double precision, one position and one head at a time."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def norm(x, name):
        centred = x - x.mean()
        return centred / math.sqrt((centred**2).mean() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    stream = [w["embed.weight"][token] + w["place.weight"][place] for place, token in enumerate(ids)]
    for layer in range(CONFIG.layers):
        block = f"blocks.{layer}"
        projected = [linear(norm(x, f"{block}.norm_attention"), f"{block}.query_key_value") for x in stream]
        for t in range(len(ids)):
            heads = []
            for head in range(CONFIG.heads):
                mine = slice(4 * head, 4 * head + 4)
                query = projected[t][:12][mine]
                scores = np.array([query @ projected[s][12:24][mine] / 2 for s in range(t + 1)])
                shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                heads.append(sum(share * projected[s][24:][mine] for s, share in enumerate(shares)))
            stream[t] = stream[t] + linear(np.concatenate(heads), f"{block}.attended")
        for t, x in enumerate(stream):
            wide = linear(norm(x, f"{block}.norm_network"), f"{block}.wide")
            bent = np.array([u / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3))) for u in wide])
            stream[t] = x + linear(bent, f"{block}.narrow")
    return np.array([w["embed.weight"] @ norm(x, "norm") for x in stream])


def test_scores_are_those_of_the_architecture_written_out(model):
    ids = [3, 1, 4, 1, 5, 9, 2]

    found = model(torch.tensor([ids]))[0][0].detach().numpy()

    np.testing.assert_allclose(found, slow_scores(model, ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6, 7, 8], [4], [1, 6], [3, 4]], ids=str)
def test_reading_in_pieces_gives_what_reading_at_once_gives(model, cuts):
    tokens = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))
    whole = model(tokens)[0].detach().numpy()

    state, pieces = None, []
    for piece in torch.tensor_split(tokens, cuts, dim=1):
        scores, state = model(piece, state)
        pieces.append(scores.detach().numpy())

    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=1e-4, atol=1e-5)
    assert all(part.shape == (3, 2, 9, 4) for layer in state for part in layer), "the batch is axis 1"


def test_a_later_token_changes_no_earlier_score(model):
    first, second = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 7, 8]])

    before, after = model(first)[0][0], model(second)[0][0]

    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3:], after[3:])


def test_an_earlier_token_changes_every_later_score(model):
    difference = (model(torch.tensor([[1, 2, 3, 4]]))[0] - model(torch.tensor([[6, 2, 3, 4]]))[0]).abs().amax(2)

    assert (difference > 1e-3).all()


@pytest.mark.parametrize(("first", "then"), [(10, None), (9, 1), (4, 6)])
def test_reading_past_the_context_is_refused(model, first, then):
    with pytest.raises(ConfigError, match="at most 9 tokens in one go and was given 10"):  # noqa: PT012
        _, state = model(torch.zeros(1, first, dtype=torch.int64))
        model(torch.zeros(1, then, dtype=torch.int64), state)


def test_gpt2_small_has_the_parameters_of_gpt2_small():
    with torch.device("meta"):
        made = build(model_config("gpt", "gpt2-small"), GPT2_VOCAB_SIZE)

    assert sum(parameter.numel() for parameter in made.parameters()) == 124_439_808
    assert made(torch.zeros(1, 1024, dtype=torch.int64, device="meta"))[0].shape == (1, 1024, 50257)


def test_it_starts_from_small_weights_smaller_where_a_branch_ends():
    torch.manual_seed(0)
    made = build(ModelConfig(task="gpt", hidden=128, layers=8, heads=4, context=200), 1000)

    for name, value in made.named_parameters():
        if "norm" in name or name.endswith("bias"):
            assert (
                value == (1.0 if name.endswith("norm.weight") or ("norm_" in name and "weight" in name) else 0.0)
            ).all()
        else:
            ends = name.endswith(("attended.weight", "narrow.weight"))
            assert value.std().item() == pytest.approx(0.02 / 4 if ends else 0.02, rel=0.05), name


def test_dropout_is_for_training_alone():
    torch.manual_seed(0)
    made = build(ModelConfig(task="gpt", hidden=12, layers=1, heads=3, context=9, dropout=0.5), VOCAB)
    tokens = torch.tensor([[1, 2, 3]])

    assert not torch.equal(made(tokens)[0], made(tokens)[0])
    made.eval()
    assert torch.equal(made(tokens)[0], made(tokens)[0])
