"""Each form and format of somebody's losses, against a slow twin that knows the losses they were written from."""

import csv
import json
import math

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carto_core import cli
from carto_core.corpus.canaries import Canary, canary_table
from carto_core.errors import ConfigError, RunExists, TrajectoryError
from carto_core.store import imported
from carto_core.store.columns import Named
from carto_core.store.reader import open_run
from carto_core.workflows import light
from carto_core.workflows.importing import guess_layout, import_run


def losses_of(num_snapshots=7, num_samples=9, seed=0):
    losses = np.random.default_rng(seed).uniform(0.1, 6, (num_snapshots, num_samples)).astype(np.float32)
    losses[2, 3] = losses[0, 8] = np.nan  # not seen
    return losses


def write(path, columns):
    """Write a table, NaN as the format's own way to say nothing."""
    frame = pd.DataFrame(columns)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True, double_precision=15)
    return path


def long_columns(losses, *, keys, numbers):
    rows = [(k, n, losses[s, i], 3 + i) for s, n in enumerate(numbers) for i, k in enumerate(keys)]
    order = np.random.default_rng(1).permutation(len(rows))
    columns = dict(zip(("key", "step", "loss", "num_tokens"), zip(*[rows[i] for i in order], strict=True), strict=True))
    return {name: list(values) for name, values in columns.items()}


def run_of(path, out, **how):
    layout = guess_layout(path, how.pop("named", Named()))
    return import_run(path, out, layout, **how), open_run(out)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_long_file_comes_in_as_it_was_whatever_the_order_of_its_rows(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(imported, "BATCH_ROWS", 8)
    losses, keys = losses_of(), [f"{i:03d}" for i in range(9)]
    numbers = [0, 5, 10, 100, 200, 1000, 20_000]
    path = write(tmp_path / f"log.{suffix}", long_columns(losses, keys=keys, numbers=numbers))

    summary, run = run_of(path, tmp_path / "theirs")

    assert (summary["num_samples"], summary["num_snapshots"], run.status) == (9, 7, "complete")
    assert run.manifest["origin"]["kind"] == "imported"
    samples = run.samples()
    assert samples["key"].tolist() == keys
    assert samples["num_tokens"].tolist() == list(range(3, 12))
    np.testing.assert_array_equal(run.trajectories("after"), losses)
    assert run.snapshots()["step"].tolist() == numbers
    np.testing.assert_array_equal(light.load_table(run).scores["final_loss"], losses[-1])


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_wide_file_comes_in_with_its_columns_in_order_of_their_numbers(tmp_path, suffix):
    losses = losses_of(num_snapshots=12)
    columns = {"id": range(9)} | {f"loss_{n}": losses[n] for n in reversed(range(12))}
    path = write(tmp_path / f"log.{suffix}", columns)

    summary, run = run_of(path, tmp_path / "theirs")

    assert summary["columns"]["form"] == "wide"
    assert run.samples()["key"].tolist() == [str(i) for i in range(9)]
    np.testing.assert_array_equal(run.trajectories("after"), losses)
    assert run.snapshots()["epoch"].tolist() == list(range(12))


def test_cartographys_dynamics_come_in_as_the_cross_entropy_of_the_gold_label(tmp_path):
    rng = np.random.default_rng(2)
    logits, gold = rng.normal(0, 4, (3, 6, 4)), rng.integers(0, 4, 6).tolist()
    folder = tmp_path / "training_dynamics"
    folder.mkdir()
    for epoch in range(3):
        rows = [
            {"guid": f"g{i}", f"logits_epoch_{epoch}": logits[epoch, i].tolist(), "gold": gold[i]} for i in range(6)
        ]
        (folder / f"dynamics_epoch_{epoch}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    summary, run = run_of(folder, tmp_path / "theirs")

    expected = [
        [math.log(sum(math.exp(v) for v in logits[e, i])) - logits[e, i, gold[i]] for i in range(6)] for e in range(3)
    ]
    np.testing.assert_allclose(run.trajectories("during"), expected, rtol=1e-6)
    assert summary["columns"]["kind"] == "during"
    assert run.samples("num_tokens")["num_tokens"].tolist() == [1] * 6


def test_several_visits_of_a_snapshot_are_averaged_by_tokens_or_refused_for_a_sweep(tmp_path):
    columns = {"key": ["a", "a", "b"], "epoch": [1, 1, 1], "loss": [1.0, 4.0, 2.0], "tokens": [1, 2, 5]}
    path = write(tmp_path / "log.csv", columns)

    _, run = run_of(path, tmp_path / "theirs", during=True)

    np.testing.assert_allclose(run.trajectories("during"), [[3.0, 2.0]])
    with pytest.raises(TrajectoryError, match="key 'a' has 2 losses at snapshot 1"):
        run_of(path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_is_no_finite_loss_is_left_out_and_told(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"key": 1, "epoch": 0, "loss": NaN}\n{"key": 2, "epoch": 0, "loss": Infinity}\n'
                    '{"key": "3", "epoch": "0", "loss": "1e-2"}\n{"key": 4, "epoch": 0, "loss": 1e300}\n'
                    '{"key": 5, "epoch": 0, "loss": null}\n{"key": 6, "epoch": 0, "loss": -1}\n')  # fmt: skip

    summary, run = run_of(path, tmp_path / "theirs")

    assert run.samples()["key"].tolist() == ["3", "6"]
    np.testing.assert_array_equal(run.trajectories("after"), np.float32([[0.01, -1]]))
    assert summary["notes"][:2] == [
        "1 losses are below 0, which no cross entropy of tokens is.",
        "3 losses were infinite or not a number, and were left out.",
    ]


def test_the_texts_come_from_a_corpus_by_key(tmp_path):
    losses = losses_of()
    path = write(tmp_path / "log.parquet", long_columns(losses, keys=[f"k{i}" for i in range(9)], numbers=range(7)))
    corpus = write(tmp_path / "corpus.csv", {"name": [f"k{i}" for i in (4, 2, 77)], "body": ["one", "two", "three"]})
    how = {"corpus": corpus, "text_column": "body"}

    _, run = run_of(path, tmp_path / "theirs", corpus_key_column="name", **how)

    samples = run.samples()
    assert samples["key"].tolist()[:4] == ["k4", "k2", "k77", "k0"]
    assert samples["text"].tolist()[:4] == ["one", "two", "three", ""]
    np.testing.assert_array_equal(run.trajectories("after")[:, :2], losses[:, [4, 2]])
    with pytest.raises(TrajectoryError, match=r"no key of the corpus \(whose first is 'corpus.csv/0'\)"):
        run_of(path, tmp_path / "other", **how)


def test_planted_canaries_are_known_by_the_rows_of_the_corpus(tmp_path):
    secret = Canary(3, "template", "The code is ", "482913", 2, "calibration", 19.9)
    pq.write_table(canary_table([secret]), tmp_path / "canaries.parquet")
    path = write(tmp_path / "log.csv", {"key": ["a", "b", "c"], "epoch": [1] * 3, "loss": [1.0, 2.0, 3.0]})
    corpus = write(tmp_path / "corpus.csv", {"key": ["a", "b", "c"], "text": ["x", secret.text, secret.text]})
    how = {"canaries": tmp_path / "canaries.parquet"}

    _, run = run_of(path, tmp_path / "theirs", corpus=corpus, **how)

    assert run.samples()["canary_id"].tolist() == [pd.NA, 3, 3]
    assert run.canaries()["secret"].tolist() == ["482913"]
    with pytest.raises(ConfigError, match="--canaries needs --corpus"):
        run_of(path, tmp_path / "other", **how)


def test_shards_of_a_folder_are_one_file_in_order_of_their_numbers(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in (2, 10):
        write(folder / f"part-{shard}.csv", {"uid": [f"s{shard}"], "epoch": [1], "loss": [shard / 4]})

    _, run = run_of(folder, tmp_path / "theirs")

    assert imported.trajectory_files(folder)[0].name == "part-2.csv"
    assert dict(zip(run.samples()["key"], run.trajectories("after")[0], strict=True)) == {"s2": 0.5, "s10": 2.5}


def test_one_snapshot_has_a_map_of_what_can_be_had(tmp_path):
    path = write(
        tmp_path / "log.csv", {"key": range(9), "epoch": [3] * 9, "loss": range(1, 10), "tokens": range(2, 11)}
    )
    corpus = write(tmp_path / "corpus.csv", {"key": range(9), "text": [f"text number {i}" for i in range(9)]})

    bare, run = run_of(path, tmp_path / "bare")
    _, with_texts = run_of(path, tmp_path / "texts", corpus=corpus)

    assert "the map shows Length against Final loss" in bare["notes"][0]
    assert (light.load_table(run).x, light.load_table(run).y) == ("num_tokens", "final_loss")
    assert (light.load_table(with_texts).x, light.load_table(with_texts).y) == ("final_loss", "zlib_ratio")


def test_a_run_that_is_there_is_not_written_over(tmp_path):
    path = write(tmp_path / "log.csv", {"key": ["a"], "epoch": [1], "loss": [1.0]})
    run_of(path, tmp_path / "theirs")

    with pytest.raises(RunExists):
        run_of(path, tmp_path / "theirs")


def carto(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([*map(str, arguments)])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_the_command_shows_its_guess_and_asks_or_takes_flags(tmp_path, capsys, monkeypatch):
    path = write(tmp_path / "log.csv", {"key": ["a", "b"], "epoch": [1, 1], "loss": [1.0, 2.0], "lr": [0.1, 0.1]})
    out = ("--out", tmp_path / "theirs")

    code, shown, said = carto(capsys, "import", path, *out)
    assert code == 2
    assert "left out    lr" in shown
    assert "--yes" in said
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.confirm", lambda question: False)
    assert carto(capsys, "import", path, *out)[0] == 1
    assert not (tmp_path / "theirs").exists()
    monkeypatch.setattr("click.confirm", lambda question: True)
    assert carto(capsys, "import", path, *out)[0] == 0
    flags = ("--key-column", "key", "--snapshot-column", "epoch", "--loss-column", "lr")
    code, printed, _ = carto(capsys, "import", path, *flags, "--out", tmp_path / "other", "--json")
    assert (code, json.loads(printed)["columns"]["loss"]) == (0, "lr")


@pytest.mark.parametrize(
    ("keys", "texts"),
    [
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([12, 3], pa.uint8()), ["12", "3"]),
        (pa.array([1.0, 2.5]), ["1.0", "2.5"]),
        (pa.array(["007", "08"], pa.large_string()), ["007", "08"]),
    ],
)
def test_a_key_of_any_kind_of_column_is_the_text_that_a_corpus_would_make_of_it(tmp_path, keys, texts):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"key": keys, "epoch": [1, 1], "loss": [1.0, 2.0]}), path)

    assert points_of(path)["key"].tolist() == texts


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_the_row_of_a_bad_cell_is_counted_over_all_batches(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(imported, "BATCH_ROWS", 8)
    columns = {"key": [str(i) for i in range(30)], "epoch": [1] * 30, "loss": ["1.5"] * 21 + ["high"] + ["1"] * 8}
    path = write(tmp_path / f"log.{suffix}", columns)

    with pytest.raises(TrajectoryError, match=r"row 21, column 'loss' holds 'high'"):
        points_of(path)


def points_of(path):
    with duckdb.connect() as con:
        imported.read_points([path], guess_layout(path, Named()), con)
        return con.execute("select * from points order by rowid").df()


def test_a_quoted_line_break_in_csv_is_part_of_its_cell(tmp_path):
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["key", "epoch", "loss"], ["a\nb", 1, " 2.5 "], ["c", 1, ""]])

    points = points_of(path)

    assert points[["key", "loss"]].to_numpy().tolist() == [["a\nb", 2.5]]
