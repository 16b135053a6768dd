import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

import carto_core
from carto_core.config import CanaryConfig, CorpusConfig
from carto_core.errors import ConfigError, CorpusError, RunError, RunExists
from carto_core.store.reader import open_run
from carto_core.store.records import RecordWriter, folder_at
from carto_core.store.rundir import RunDir, update_manifest
from carto_core.workflows import light
from carto_core.workflows.planting import plant_corpus
from carto_core.workflows.recording import join_corpus, seal_recording
from tests.texts import sentences, write_jsonl

ROWS = [{"key": f"k{i}", "text": f"number {i // 2} of the texts"} for i in range(12)]


def record_epochs(rec, losses, *, batch=5, num_tokens=3):
    """Log float[S, N] losses of samples k0, k1, ..., one snapshot a row."""
    for row in losses:
        for start in range(0, len(row), batch):
            keys = [f"k{i}" for i in range(start, min(start + batch, len(row)))]
            rec.log(keys, row[start : start + batch], [num_tokens] * len(keys))
        rec.snapshot()


def record_and_fail(out, losses):
    with carto_core.record(out, corpus=ROWS) as rec:
        record_epochs(rec, losses)
        raise ZeroDivisionError("as a loop may")


def falling(num_snapshots=6, num_samples=12, seed=0):
    start = np.random.default_rng(seed).uniform(2, 5, num_samples)
    return (start * np.exp(-0.3 * np.arange(num_snapshots))[:, None]).astype(np.float32)


def test_a_loop_becomes_a_scored_run_with_its_texts_groups_and_losses(tmp_path):
    losses = falling()

    with carto_core.record(tmp_path / "mine", corpus=ROWS) as rec:
        record_epochs(rec, losses)

    run = open_run(tmp_path / "mine")
    assert (rec.failure, run.status, run.is_foreign) == (None, "complete", True)
    np.testing.assert_array_equal(run.trajectories("during"), losses)
    samples = run.samples()
    assert samples["text"].tolist() == [row["text"] for row in ROWS]
    assert samples["group_id"].tolist() == [i // 2 for i in range(12)]
    assert samples["num_tokens"].tolist() == [3] * 12
    table = light.load_table(run)
    np.testing.assert_allclose(table.scores["final_loss"], losses[-1])
    assert table.scores["near_duplicates"].min() >= 1


def test_visits_of_one_snapshot_are_averaged_by_their_tokens_as_a_slow_twin_does(tmp_path):
    rng = np.random.default_rng(3)
    visits = [(f"k{rng.integers(5)}", rng.uniform(0.1, 9), int(rng.integers(1, 50))) for _ in range(200)]

    with carto_core.record(tmp_path / "mine") as rec:
        for start in range(0, 200, 7):
            keys, losses, tokens = zip(*visits[start : start + 7], strict=True)
            rec.log(keys, losses, tokens)

    run = open_run(tmp_path / "mine")
    expected = []
    for key in run.samples("key")["key"]:
        own = [(np.float32(loss), tokens) for name, loss, tokens in visits if name == key]
        expected.append(sum(float(loss) * tokens for loss, tokens in own) / sum(tokens for _, tokens in own))
    np.testing.assert_allclose(run.trajectories("during")[0], expected, rtol=1e-5)


def test_what_two_ranks_draw_twice_counts_once(tmp_path):
    """Ranks draw 0..4 and 1..5: samples 1 to 4 are drawn twice a pass, with a loss each, and 0 and 5 once."""
    recorders = [carto_core.record(tmp_path / "two", rank=rank, ranks=2) for rank in (0, 1)]
    for rec in recorders:
        rec.start()
    for epoch in range(3):
        for rank, rec in enumerate(recorders):
            keys = [f"k{i}" for i in range(rank, rank + 5)]
            for visit in range(2):
                rec.log(keys, [10 * epoch + rank + 100 * visit] * 5, [1 + rank] * 5)
            rec.snapshot()
    for rec in reversed(recorders):
        rec.close()

    run = open_run(tmp_path / "two")
    both, alone = (0 + 1 * 2) / 3, (0.0, 1.0)
    first = [alone[0], *[both] * 4, alone[1]]
    expected = [[10 * epoch + value + 50 for value in first] for epoch in range(3)]
    np.testing.assert_allclose(run.trajectories("during"), expected, rtol=1e-6)


def test_a_rank_that_dies_takes_one_snapshot_along(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("carto_core.integrations.recorder.RANK_S", 0.2)
    recorders = [carto_core.record(tmp_path / "two", rank=rank, ranks=2) for rank in (0, 1)]
    for rec in recorders:
        rec.start()
    for epoch in range(4):
        for rank, rec in enumerate(recorders):
            if epoch < 3 or rank == 0:
                rec.log([f"k{rank}"], [epoch], [1])
                rec.snapshot()

    recorders[0].close()

    assert "is there a rank that has died" in recorders[0].failure
    assert open_run(tmp_path / "two").status == "interrupted"
    summary = seal_recording(tmp_path / "two")
    assert summary["num_snapshots"] == 3
    np.testing.assert_array_equal(open_run(tmp_path / "two").trajectories("during"), [[0, 0], [1, 1], [2, 2]])


def test_a_run_that_is_being_recorded_can_be_read_and_shows_whole_snapshots(tmp_path):
    losses = falling()
    rec = carto_core.record(tmp_path / "mine", corpus=ROWS)
    rec.start()
    record_epochs(rec, losses[:3])
    rec.log(["k0"], [9.0], [1])
    run = open_run(tmp_path / "mine")

    table = light.load_live_table(run)

    assert (run.status, run.version) == ("running", (0, 3))
    np.testing.assert_array_equal(run.trajectories("during"), losses[:3])
    assert len(table) == 12
    rec.close()
    assert len(open_run(tmp_path / "mine").snapshots()) == 4


def test_a_full_disk_ends_the_recording_with_one_loud_line_and_not_the_training(tmp_path, monkeypatch, caplog):
    rec = carto_core.record(tmp_path / "mine", corpus=ROWS)
    steps = 0

    with rec:
        record_epochs(rec, falling()[:2])
        monkeypatch.setattr("pathlib.Path.write_bytes", _full)
        for _ in range(3):
            rec.log(["k0"], [1.0], [1])
            rec.snapshot()
            steps += 1

    assert steps == 3
    loud = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert len(loud) == 1
    assert "No space left" in loud[0].getMessage()
    assert "carto_core seal" in loud[0].getMessage()
    monkeypatch.undo()
    assert open_run(tmp_path / "mine").status == "interrupted"
    assert seal_recording(tmp_path / "mine")["num_snapshots"] == 2


def _full(self, content):
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize(
    ("keys", "losses", "tokens", "says"),
    [
        (["a", "b"], [1.0], None, "2 keys, and losses of shape (1,)"),
        (["a"], [1.0], [1, 2], "1 keys, and num_tokens of shape (2,)"),
        (["a"], torch.ones(1, 2), None, "losses of shape (1, 2)"),
        (["a"], 1.0, None, "losses of shape ()"),
        (None, [1.0], None, "TypeError"),
    ],
)
def test_a_wrong_call_is_told_and_never_raised(tmp_path, keys, losses, tokens, says):
    with carto_core.record(tmp_path / "mine") as rec:
        rec.log(["a"], [1.0])
        rec.snapshot()
        rec.log(keys, losses, tokens)

    assert says in rec.failure
    assert open_run(tmp_path / "mine").status == "interrupted"


def test_losses_that_are_no_finite_number_are_left_out_counted_and_told(tmp_path):
    with carto_core.record(tmp_path / "mine", corpus=ROWS) as rec:
        rec.log(["k0", "k1", "k2", "k3"], [1.0, np.inf, np.nan, 2.0], [1, 1, 1, 0])

    run = open_run(tmp_path / "mine")
    assert run.manifest["origin"]["left_out"] == 2
    np.testing.assert_array_equal(run.trajectories("during")[0, :4], [1.0, np.nan, np.nan, np.nan])
    notes = seal_recording(tmp_path / "mine")["notes"]
    assert any("2 losses were infinite" in note for note in notes)
    assert any("11 of 12 samples were never seen" in note for note in notes)


def test_tensors_of_any_kind_are_copied_when_they_are_logged(tmp_path):
    losses = torch.tensor([1.5, 2.5], dtype=torch.bfloat16, requires_grad=True)
    keys, tokens = torch.tensor([7, 11]), torch.tensor([2, 3])

    with carto_core.record(tmp_path / "mine") as rec:
        rec.log(keys, losses, tokens)
        with torch.no_grad():
            losses.zero_()
        keys.zero_()
        tokens.zero_()

    run = open_run(tmp_path / "mine")
    assert run.samples("key")["key"].tolist() == ["7", "11"]
    np.testing.assert_array_equal(run.trajectories("during"), [[1.5, 2.5]])


def test_keys_that_the_corpus_lacks_come_after_it_numbers_first_and_each_is_a_group(tmp_path):
    with carto_core.record(tmp_path / "mine", corpus=ROWS[:2]) as rec:
        rec.log(["b", "10", "9", "k1"], [1, 2, 3, 4], [5] * 4)

    samples = open_run(tmp_path / "mine").samples()
    assert samples["key"].tolist() == ["k0", "k1", "9", "10", "b"]
    assert samples["group_id"].tolist() == [0, 0, 1, 2, 3]
    assert np.isnan(light.load_table(open_run(tmp_path / "mine")).scores["zlib_ratio"]).tolist() == [
        True, False, True, True, True,
    ]  # fmt: skip


def test_a_sweep_is_a_snapshot_of_its_own_kind_and_is_what_is_scored(tmp_path):
    losses = falling()

    with carto_core.record(tmp_path / "mine", corpus=ROWS) as rec:
        for row in losses:
            rec.log(["k0"], [7.0], [1])
            rec.log([f"k{i}" for i in range(12)], row, [1] * 12, kind="after")
            rec.snapshot(step=100, epoch=0.5)

    run = open_run(tmp_path / "mine")
    assert run.snapshots()["kind"].tolist() == ["during", "after"] * 6
    np.testing.assert_array_equal(run.trajectories("after"), losses)
    assert light.scored_kind(run) == "after"
    assert set(run.snapshots()["step"]) == {100}


def test_a_loop_that_failed_is_gone_on_with_from_its_checkpoint(tmp_path):
    losses = falling()
    with pytest.raises(ZeroDivisionError):
        record_and_fail(tmp_path / "mine", losses[:4])
    assert "ZeroDivisionError" in open_run(tmp_path / "mine").manifest["error"]

    with carto_core.record(tmp_path / "mine", resume=True) as rec:
        rec.rewind(2 * 3)  # three batches a pass: two passes
        record_epochs(rec, losses[2:])

    run = open_run(tmp_path / "mine")
    assert run.snapshots()["step"].tolist() == [3, 6, 9, 12, 15, 18]
    np.testing.assert_array_equal(run.trajectories("during"), losses)


def test_what_cannot_be_recorded_into_is_refused_before_the_training_begins(tmp_path):
    with carto_core.record(tmp_path / "mine") as rec:
        rec.log(["a"], [1.0])

    with pytest.raises(RunExists, match="exists already"):
        carto_core.record(tmp_path / "mine").start()
    with pytest.raises(RunError, match="sealed, or no recording"):
        carto_core.record(tmp_path / "mine", resume=True).start()
    with pytest.raises(CorpusError, match="no corpus at"):
        carto_core.record(tmp_path / "other", corpus=tmp_path / "nowhere.jsonl")
    with pytest.raises(ConfigError, match="rank 2 of 2 ranks"):
        carto_core.record(tmp_path / "other", rank=2, ranks=2)
    with pytest.raises(ConfigError, match="cannot be reached"):
        carto_core.record("nosuchthing://bucket/run").start()


def test_other_ranks_than_before_cannot_go_on(tmp_path):
    with pytest.raises(ZeroDivisionError):
        record_and_fail(tmp_path / "mine", falling())

    with pytest.raises(RunError, match="recorded by 1 ranks, and here are 2"):
        carto_core.record(tmp_path / "mine", resume=True, rank=0, ranks=2).start()


def test_a_recording_on_another_file_system_is_sealed_here(tmp_path):
    losses = falling()
    address = f"memory://{tmp_path.name}/far"
    with carto_core.record(address, corpus=ROWS) as rec:
        record_epochs(rec, losses)
    assert rec.failure is None

    summary = seal_recording(address, out=tmp_path / "near")

    run = open_run(tmp_path / "near")
    assert (summary["num_snapshots"], run.status, run.run_id) == (6, "complete", "near")
    np.testing.assert_array_equal(run.trajectories("during"), losses)
    with pytest.raises(RunExists):
        seal_recording(address, out=tmp_path / "near")
    with pytest.raises(RunExists):
        carto_core.record(address).start()


def test_texts_can_be_joined_later_by_key(tmp_path):
    with carto_core.record(tmp_path / "mine") as rec:
        record_epochs(rec, falling())
    run = open_run(tmp_path / "mine")
    before = run.manifest["corpus_sha256"]

    summary = join_corpus(run, ROWS[:10])

    run = open_run(tmp_path / "mine")
    assert summary == {"run": "mine", "joined": 10, "without": 2}
    texts = dict(zip(run.samples()["key"], run.samples()["text"], strict=True))
    assert texts["k3"] == ROWS[3]["text"]
    assert texts["k11"] == ""
    assert run.manifest["corpus_sha256"] != before
    table = light.load_table(run)
    groups = dict(zip(table.key, table.group_id, strict=True))
    assert groups["k2"] == groups["k3"] != groups["k4"]
    with pytest.raises(CorpusError, match="no key of the corpus"):
        join_corpus(run, [{"key": "x", "text": "y"}])


def test_rows_without_keys_are_known_by_their_number_and_only_equal_texts_are_a_group(tmp_path):
    rows = [{"text": "a", "group": 1}, {"text": "b", "group": 1}, {"text": "b"}]

    with carto_core.record(tmp_path / "mine", corpus=rows) as rec:
        rec.log([0, 1, 2], [1, 2, 3])

    assert open_run(tmp_path / "mine").samples()["group_id"].tolist() == [0, 1, 1]
    assert open_run(tmp_path / "mine").samples()["key"].tolist() == ["0", "1", "2"]


def test_a_run_that_is_still_recorded_or_is_ours_or_is_empty_is_not_sealed(tmp_path, trained_run):
    rec = carto_core.record(tmp_path / "mine")
    rec.start()
    with pytest.raises(RunError, match="holds no snapshot"):
        seal_recording(tmp_path / "mine")
    update_manifest(RunDir(tmp_path / "mine"), pid=os.getppid(), pid_start=psutil.Process(os.getppid()).create_time())

    with pytest.raises(RunError, match="still being recorded"):
        seal_recording(tmp_path / "mine")
    with pytest.raises(RunError, match="trained by this program"):
        seal_recording(trained_run.files.path)


def test_the_recorder_needs_neither_duckdb_nor_streamlit_until_it_seals(tmp_path):
    program = f"""
import sys
sys.modules["duckdb"] = sys.modules["streamlit"] = None
import carto_core
with carto_core.record({str(tmp_path / "mine")!r}) as rec:
    rec.log(["a"], [1.0], [2])
assert "duckdb" in rec.failure, rec.failure
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert seal_recording(tmp_path / "mine")["num_samples"] == 1


def test_a_list_of_moments_that_is_damaged_is_told(tmp_path):
    folder = folder_at(tmp_path)
    folder.write("rank0000.json", b'{"moments": [{"moment": 3}]}')

    with pytest.raises(RunError, match=r"rank0000\.json of a recording"):
        RecordWriter(folder)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A corpus of 150 sentences with 20 canaries in it."""
    folder = tmp_path_factory.mktemp("planted")
    corpus = write_jsonl(folder / "c.jsonl", sentences(150))
    canaries = CanaryConfig(num_inserted=20, repeats=(1, 4), kinds=("template", "words"))
    return plant_corpus(CorpusConfig(path=str(corpus)), canaries, folder / "out")


def test_a_planted_corpus_holds_every_row_and_every_copy_in_another_order(planted):
    lines = (Path(planted["out"]) / "corpus.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    canaries = pq.read_table(Path(planted["out"]) / "canaries.parquet").to_pandas().set_index("canary_id")

    copies = [row for row in rows if row["source"] == "canary"]

    assert (planted["num_rows"], planted["num_inserted"], planted["num_controls"]) == (150, 20, 20)
    assert Counter(whose(row) for row in copies) == canaries.query("repeats > 0")["repeats"].to_dict()
    assert {row["text"] for row in copies} == set((canaries["prefix"] + canaries["secret"])[canaries["inserted"]])
    assert len(rows) == 150 + planted["num_copies"]
    assert [i for i, row in enumerate(rows) if row in copies] != list(range(150, len(rows)))
    with pytest.raises(RunExists, match="exists already"):
        plant_corpus(CorpusConfig(path="demo"), CanaryConfig(), planted["out"])


def whose(row):
    return int(row["key"].split("/")[1]) if row["source"] == "canary" else None


def test_a_recording_of_a_planted_corpus_says_how_well_scores_find_the_canaries(planted, tmp_path):
    folder = Path(planted["out"])
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    copies = Counter(map(whose, rows))
    losses = [4 - (2 if copies[whose(row)] == 4 else 0) for row in rows]

    with carto_core.record(
        tmp_path / "mine", corpus=folder / "corpus.jsonl", canaries=folder / "canaries.parquet"
    ) as rec:
        for epoch in range(4):
            rec.log([row["key"] for row in rows], [loss - 0.1 * epoch for loss in losses], [9] * len(rows))
            rec.snapshot()

    run = open_run(tmp_path / "mine")
    table = light.load_table(run)
    assert table.is_canary.sum() == planted["num_copies"]
    assert len(run.canaries()) == 40
    found = light.describe_scores(run, table=table)["final_loss"]["quality"]["inserted"]["calibration"]["all"]
    assert found["auc"]["value"] > 0.6
    assert table.canary_id[~np.isnan(table.canary_id)].astype(int).tolist() == [
        whose(r) for r in rows if whose(r) is not None
    ]


def test_a_file_that_is_no_table_of_canaries_is_refused(tmp_path):
    (tmp_path / "no.parquet").write_bytes(b"PAR1")

    with pytest.raises(CorpusError, match="cannot be read as a table of canaries"):
        carto_core.record(tmp_path / "mine", corpus=ROWS, canaries=tmp_path / "no.parquet")
