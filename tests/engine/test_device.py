import os

import pytest
import torch

from carto_core.engine import checkpoint
from carto_core.engine.device import forward_precision, pick_device
from carto_core.errors import ConfigError


def test_repeatable_and_float32_in_earnest():
    assert pick_device("cpu", threads=1) == torch.device("cpu")

    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.mem_efficient_sdp_enabled(), "its backward pass adds up in any order"
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert pick_device("auto", threads=1) == torch.device("cpu")
    with pytest.raises(ConfigError, match="no usable CUDA device"):
        pick_device("cuda", threads=1)


def test_a_card_without_bfloat16_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old Card")

    with pytest.raises(ConfigError, match="--precision bf16: Old Card does not compute in bfloat16"):
        forward_precision(torch.device("cuda"), "bf16")


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_of_what_is_computed_inside(precision, dtype):
    context, x = forward_precision(torch.device("cpu"), precision), torch.ones(2, 2)

    for _ in range(2):
        with context:
            assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


def test_a_checkpoint_keeps_cudas_generator_where_cuda_is_in_use(tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    given = torch.arange(16, dtype=torch.uint8)
    taken = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: given)
    monkeypatch.setattr(torch.cuda, "set_rng_state", taken.append)
    checkpoint.save_checkpoint(tmp_path, step=1, model=model, optimizer=optimizer, state={})

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    checkpoint.save_checkpoint(tmp_path, step=2, model=model, optimizer=optimizer, state={})
    torch.manual_seed(8)
    assert checkpoint.load_training(checkpoint.last_checkpoint(tmp_path), optimizer) == {"step": 2}

    assert torch.equal(torch.rand(3), expected)
    assert len(taken) == 1
    assert torch.equal(taken[0], given)
