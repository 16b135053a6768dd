"""The examples of docs/examples, run as they are: train, record, open, plan, export."""

import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DistributedSampler

import carto_core
from carto_core.store.reader import open_run
from carto_core.workflows import light
from tests.ui import test_pages as pages

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
LINES = {"plain_loop": 4, "hf_trainer": 2, "lightning_module": 2, "ddp_loop": 4, "accelerate_loop": 4}
OF_TWO_RANKS = ("ddp_loop", "accelerate_loop")

pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated",
)


def run_example(name, out, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [name, str(out)])
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory):
    """The runs of the examples with two ranks, by name: two processes each, told what torchrun tells them, all at once."""
    common = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(DOCS.parent), "GLOO_SOCKET_IFNAME": "lo"}
    runs = {name: tmp_path_factory.mktemp(name) / "mine" for name in OF_TWO_RANKS}
    ranks = []
    for name, out in runs.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), str(out)]
        for rank in ("0", "1"):
            told = common | world | {"RANK": rank, "LOCAL_RANK": rank}
            ranks.append(subprocess.Popen(command, env=told, stderr=subprocess.PIPE))
    said = [rank.communicate(timeout=300)[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * len(ranks), said
    return runs


@pytest.mark.parametrize("name", LINES)
def test_an_example_trains_records_opens_and_its_list_survives_the_round_trip(name, tmp_path, monkeypatch, request):
    if name in OF_TWO_RANKS:
        path = request.getfixturevalue("of_two_ranks")[name]
    else:
        path = tmp_path / "mine"
        run_example(name, path, monkeypatch)

    run = open_run(path)
    table = light.load_table(run)
    texts = [row["text"] for row in runpy.run_path(str(EXAMPLES / "rows.py"))["ROWS"]]
    assert (run.status, run.is_foreign) == ("complete", True)
    assert run.samples()["text"].tolist() == texts
    assert np.isfinite(run.trajectories("during")).all()
    assert run.snapshots()["epoch"].tolist() == [*range(1, 9)]
    monkeypatch.setenv("CARTO_RUNS", str(path.parent))
    assert f"{len(texts)} samples" in pages.words(pages.opened("map", run=run.run_id))
    selection = light.select(run, {"type": "top", "by": "difficulty", "q": 0.2}, table=table)
    plan = light.plan_action(run, selection, action="prune", table=table)
    out = light.export(run, light.save_plan(run, plan), file_format="csv", out=tmp_path / "list.csv")
    rows = pd.read_csv(out, dtype={"key": str})
    assert set(rows["key"]) == set(table.key[selection.sample_ids])


def test_forget_counts_and_losses_are_those_of_one_rank_that_takes_both_ranks_batches(
    tmp_path, monkeypatch, of_two_ranks
):
    """37 rows on two ranks in batches of four: one row is drawn twice in each pass."""
    monkeypatch.syspath_prepend(EXAMPLES)
    plain, rows = (runpy.run_path(str(EXAMPLES / f"{name}.py")) for name in ("plain_loop", "rows"))
    rows = rows["ROWS"]
    torch.manual_seed(0)
    model = plain["GPT"]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    samplers = [DistributedSampler(rows, num_replicas=2, rank=rank, seed=0) for rank in (0, 1)]
    with carto_core.record(tmp_path / "one", corpus=rows) as recorder:
        for epoch in range(8):
            for sampler in samplers:
                sampler.set_epoch(epoch)
            drawn = [list(sampler) for sampler in samplers]
            for start in range(0, len(drawn[0]), 4):
                losses = []
                for of_rank in drawn:
                    keys, x, y = plain["batch_of"]([rows[i] for i in of_rank[start : start + 4]])
                    logits, loss = model(x, y)
                    recorder.log(keys, *carto_core.per_sample_loss(logits, y, shifted=True))
                    losses.append(loss / 2)
                optimizer.zero_grad()
                sum(losses).backward()
                optimizer.step()
            recorder.snapshot()

    one, two = open_run(tmp_path / "one"), open_run(of_two_ranks["ddp_loop"])
    assert sum(map(len, drawn)) == len(rows) + 1
    np.testing.assert_allclose(two.trajectories("during"), one.trajectories("during"), rtol=1e-4)
    tables = [light.load_table(run) for run in (one, two)]
    np.testing.assert_array_equal(tables[0].scores["memorization"], tables[1].scores["memorization"])
    assert tables[0].scores["memorization"].max() > 0


@pytest.mark.parametrize(("name", "most"), LINES.items())
def test_an_example_marks_its_few_lines_and_is_nothing_without_them_but_a_loop(name, most):
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")

    ours = [line for line in source.splitlines() if line.endswith("# carto")]
    rest = [line for line in source.splitlines() if not line.endswith("# carto")]

    assert len(ours) == most <= 5
    assert not re.search(r"carto_core|prepare_trainer|CartoCallback", "\n".join(rest).split(chr(34) * 3, 2)[2])


def test_every_block_of_the_page_is_a_part_of_an_example():
    page = (DOCS / "bring-your-own.md").read_text(encoding="utf-8")
    sources = "\n".join(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py"))

    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    assert len(blocks) >= 3
    for block in blocks:
        for part in block.split("...\n"):
            assert part.strip("\n") in sources, part
