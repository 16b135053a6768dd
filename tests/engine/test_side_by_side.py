import os

from carto_core.engine.side_by_side import num_workers


def manifest(device, threads):
    return {"device": device, "config": {"engine": {"threads": threads}}}


def test_models_share_the_cores_and_never_a_card(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    assert num_workers(manifest("cpu", 1)) == 8
    assert num_workers(manifest("cpu", 3)) == 2
    assert num_workers(manifest("cpu", 16)) == 1
    assert num_workers(manifest("cuda", 1)) == 1
