import shutil

import pytest
import torch

from carto_core.engine.executors import LocalExecutor
from carto_core.errors import RunError
from carto_core.preview import measured
from carto_core.preview.arms import arms_of
from carto_core.preview.measured import measure_arms
from carto_core.store.reader import open_run
from carto_core.workflows import light
from tests.here import HERE


@pytest.fixture
def run(trained_run, tmp_path):
    shutil.copytree(trained_run.files.path, tmp_path / "trained")
    return open_run(tmp_path / "trained")


def prune(run):
    selection = light.select(run, {"type": "top", "by": "consolidation", "q": 0.2})
    return light.plan_action(run, selection, action="prune")


@pytest.fixture
def on_a_gpu(run, monkeypatch):
    """Train in stacks, in this process and on the CPU, of three models at most."""
    monkeypatch.setattr(measured, "_are_stacked", lambda run, executor: True)
    monkeypatch.setattr(measured, "num_stacked", lambda task, config, *, free_bytes: 3)
    return run


def test_arms_trained_in_stacks_are_what_they_are_alone(on_a_gpu, monkeypatch):
    run, table = on_a_gpu, light.load_table(on_a_gpu)
    arms = arms_of(run, prune(run), table, seeds=2, equal="epochs", audits=("extraction", "perplexity"))
    sizes, told = [], []
    train_stacked = measured.train_stacked
    monkeypatch.setattr(
        measured, "train_stacked", lambda *a, **how: (sizes.append(len(a[2])), train_stacked(*a, **how))[1]
    )

    stacked = measure_arms(run.files.path, arms, progress=lambda *line: told.append(line), executor=HERE)["arms"]
    for arm in arms:
        arm.path(run).unlink()
    monkeypatch.setattr(measured, "_are_stacked", lambda run, executor: False)
    alone = measure_arms(run.files.path, arms, progress=lambda *_: None, executor=HERE)["arms"]

    assert sizes == [3, 3, 2]
    assert told[-1][2] == 8, "progress counts retrains, not stacks"
    assert [(a["arm"], a["seed"], a["steps"], a["tokens"]) for a in stacked] == [
        (a["arm"], a["seed"], a["steps"], a["tokens"]) for a in alone
    ]
    assert [a["ppl_nats"] for a in stacked] == pytest.approx([a["ppl_nats"] for a in alone], abs=1e-3)
    assert len({a["ppl_nats"] for a in stacked}) == 8
    assert {a["device"] for a in (*stacked, *alone)} == {"cpu"}
    assert list((run.files.previews / "arms").glob("*.progress*")) == []


def test_a_stack_that_the_memory_does_not_bear_is_halved(on_a_gpu, monkeypatch):
    run, sizes = on_a_gpu, []
    train_stacked = measured.train_stacked

    def scarce(task, config, stack, **how):
        sizes.append(len(stack))
        if len(stack) > bears:
            raise torch.OutOfMemoryError
        return train_stacked(task, config, stack, **how)

    monkeypatch.setattr(measured, "train_stacked", scarce)
    arms = arms_of(run, prune(run), light.load_table(run), seeds=1, equal="steps", audits=("perplexity",))[:3]
    bears = 0
    with pytest.raises(RunError, match="the GPU's memory does not bear one model of this run"):
        measure_arms(run.files.path, arms, progress=lambda *_: None, executor=HERE)
    bears = 1

    assert len(measure_arms(run.files.path, arms, progress=lambda *_: None, executor=HERE)["arms"]) == 3
    assert sizes == [3, 1, 3, 1, 1, 1]


def test_what_cannot_be_stacked_is_trained_alone(on_a_gpu, monkeypatch):
    run = on_a_gpu
    arms = arms_of(run, prune(run), light.load_table(run), seeds=1, equal="steps", audits=("perplexity",))[:3]
    alone = []
    train = measured.train
    monkeypatch.setattr(measured, "is_stackable", lambda task, arm: arm.arm != "plan")
    monkeypatch.setattr(measured, "train", lambda *a, **how: (alone.append(how["repeats"]), train(*a, **how))[1])

    measure_arms(run.files.path, arms, progress=lambda *_: None, executor=HERE)

    assert [repeats is arms[1].repeats for repeats in alone] == [True]
    assert all(arm.path(run).is_file() for arm in arms)


@pytest.mark.parametrize(("cuda", "workers", "stacked"), [(True, None, True), (True, 2, False), (False, None, False)])
def test_arms_are_stacked_on_a_gpu_unless_processes_were_asked_for(run, monkeypatch, cuda, workers, stacked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    auto, cpu = (type("C", (), {"engine": type("E", (), {"device": name})}) for name in ("auto", "cpu"))

    monkeypatch.setattr(measured.RunConfig, "from_dict", lambda facts: auto)
    assert measured._are_stacked(run, LocalExecutor(workers)) == stacked
    assert not measured._are_stacked(run, HERE), "another executor has its own room"
    monkeypatch.setattr(measured.RunConfig, "from_dict", lambda facts: cpu)
    assert not measured._are_stacked(run, LocalExecutor(workers))
