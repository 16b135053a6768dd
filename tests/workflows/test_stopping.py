"""SIGTERM and Ctrl-C come out as themselves, whatever a library made of them on the way."""

import signal
from contextlib import suppress

import duckdb
import pytest
import torch
from torch import nn

from carto_core.engine import checkpoint
from carto_core.errors import Cancelled
from carto_core.workflows.progress import stoppable


@pytest.fixture(autouse=True)
def _ctrl_c():
    """What a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "made_of_it", [KeyboardInterrupt(), RuntimeError("std::bad_cast"), duckdb.CatalogException("no table rows")]
)
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, Cancelled), (signal.SIGINT, KeyboardInterrupt)])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_signal_that_a_query_made_something_else_of_is_what_it_was(number, expected, made_of_it, depth):
    with pytest.raises(expected) as raised:
        stopped_in(depth, number, made_of_it)

    assert type(raised.value) is expected


def stopped_in(depth, number, made_of_it):
    with stoppable():
        if depth > 1:
            stopped_in(depth - 1, number, made_of_it)
        swallow(number, made_of_it)


def swallow(number, made_of_it):
    with suppress(Cancelled, KeyboardInterrupt):
        signal.raise_signal(number)
    raise made_of_it


def test_a_stop_while_a_file_is_loaded_is_not_taken_for_what_is_wrong_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "load_file", lambda *_, **__: signal.raise_signal(signal.SIGTERM))

    with pytest.raises(Cancelled), stoppable():
        checkpoint.load_model(tmp_path / "step-1", nn.Linear(1, 1), torch.device("cpu"))


@pytest.mark.parametrize("error", [RuntimeError("std::bad_cast"), NotImplementedError(), ValueError()])
def test_an_error_without_a_signal_stays_an_error(error):
    with pytest.raises(type(error)) as raised, stoppable():
        raise error

    assert raised.value is error


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_handlers_are_put_back_and_a_ctrl_c_that_somebody_else_handles_is_left_to_them(handler):
    term = signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert signal.getsignal(signal.SIGINT) not in (handler, signal.default_int_handler)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, handler)

    with stoppable():
        assert signal.getsignal(signal.SIGINT) is handler
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (handler, term)
