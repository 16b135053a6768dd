import csv
import json
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carto_core import cli
from carto_core.workflows import measuring
from tests import tiny
from tests.texts import sentences

QUICK = ["--vocab-size", "300", "--epochs", "1", "--snapshots", "3", "--canaries", "4", "--canary-repeats", "1,4"]


def carto(capsys, *arguments):
    """Run the command line in this process; return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return exit_.value.code, out, err


def write_corpus(folder, suffix):
    texts = sentences(150) + sentences(10) * 2
    path = folder / f"mine.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps({"key": f"k{i}", "text": t}) + "\n" for i, t in enumerate(texts)))
    elif suffix == "parquet":
        pq.write_table(pa.table({"body": texts, "id": [f"k{i}" for i in range(len(texts))]}), path)
    elif suffix == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["body", "id"], *([t, f"k{i}"] for i, t in enumerate(texts))])
    else:
        path.write_text("\n".join(texts))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv", "txt"])
def test_train_to_export_works_from_the_command_line_alone(capsys, tmp_path, suffix):
    columns = ["--text-column", "body", "--key-column", "id"] if suffix in ("parquet", "csv") else []
    out = tmp_path / "runs" / "mine"

    code, text, _ = carto(
        capsys, "train", "--corpus", write_corpus(tmp_path, suffix), *columns, *QUICK, "--out", out, "--json"
    )
    assert code == 0
    assert json.loads(text)["status"] == "complete"
    code, text, _ = carto(
        capsys, "select", out, "--top", 0.1, "--by", "final_loss", "--out", tmp_path / "s.json", "--json"
    )
    assert code == 0
    selected = json.loads(text)["num_samples"]
    code, text, _ = carto(capsys, "plan", out, tmp_path / "s.json", "--action", "prune", "--json")
    plan_dir = json.loads(text)["path"]
    code, text, _ = carto(
        capsys, "export", out, plan_dir, "--format", "jsonl", "--out", tmp_path / "list.jsonl", "--json"
    )

    assert code == 0
    rows = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert len(rows) == selected > 0
    chosen = json.loads((tmp_path / "s.json").read_text())["keys"]
    assert {row["key"] for row in rows} == set(chosen)
    assert {row["action"] for row in rows} == {"prune"}
    code, _, _ = carto(capsys, "export", out, plan_dir, "--corpus", "--out", tmp_path / "clean.jsonl")
    cleaned = {json.loads(line)["key"] for line in (tmp_path / "clean.jsonl").read_text().splitlines()}
    assert not cleaned & set(chosen)


def test_a_transformer_is_trained_and_audited_from_the_command_line(capsys, tmp_path):
    out, corpus = tmp_path / "runs" / "gpt", write_corpus(tmp_path, "txt")
    size = ["--layers", "1", "--heads", "2", "--hidden", "8", "--context", "96", "--dropout", "0.1"]
    more = ["--precision", "bf16", "--weight-decay", "0.01"]

    code, _, _ = carto(capsys, "train", "--corpus", corpus, "--task", "gpt", *size, *more, *QUICK, "--out", out)

    assert code == 0
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["model"] == {
        "task": "gpt",
        "embed": None,
        "hidden": 8,
        "layers": 1,
        "heads": 2,
        "dropout": 0.1,
        "context": 96,
    }
    assert {k: config["engine"][k] for k in ("precision", "learning_rate", "weight_decay")} == {
        "precision": "bf16",
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
    }
    code, text, _ = carto(capsys, "audit", out, "--json")
    assert code == 0
    assert json.loads(text)["extraction"]["summary"]["calibration"]["inserted"]["n"] == 2


def test_a_polygon_selects_what_an_independent_count_finds(capsys, trained_run, tmp_path):
    with duckdb.connect(str(trained_run.files.database), read_only=True) as con:
        rows = con.execute(
            "select key, difficulty::DOUBLE, final_loss::DOUBLE from samples join scores using (sample_id)"
        ).fetchall()
    x, y = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    (left, middle, right), (low, half, high) = np.quantile(x, [0.1, 0.5, 0.9]), np.quantile(y, [0.1, 0.5, 0.9])
    notch = [[left, low], [right, low], [right, high], [middle, half], [left, high]]
    (tmp_path / "p.json").write_text(
        json.dumps({"version": 1, "x": "difficulty", "y": "final_loss", "polygons": [notch]})
    )

    code, _, _ = carto(
        capsys, "select", trained_run.files.path, "--polygon", tmp_path / "p.json", "--out", tmp_path / "s.json"
    )

    assert code == 0
    selection = json.loads((tmp_path / "s.json").read_text())
    corners = selection["rule"]["polygons"][0]
    inside = {key for key, a, b in rows if is_inside(a, b, corners)}
    in_box = {key for key, a, b in rows if left < a < right and low < b < high}
    assert set(selection["keys"]) == inside
    assert inside < in_box, "the notch leaves out something that the bounding box holds"


@pytest.mark.parametrize("op", ["add", "subtract", "intersect"])
def test_a_rule_is_combined_with_a_selection_file(capsys, trained_run, tmp_path, op):
    def select(name, *how):
        code, text, err = carto(capsys, "select", trained_run.files.path, *how, "--out", tmp_path / name, "--json")
        assert code == 0, err
        return json.loads((tmp_path / name).read_text()), json.loads(text)

    first, _ = select("first.json", "--top", 0.3, "--by", "difficulty")
    second, _ = select("second.json", "--top", 0.3, "--by", "final_loss")
    both, said = select(
        "both.json", "--top", 0.3, "--by", "difficulty", "--combine", op, "--with", tmp_path / "second.json"
    )

    one, two = set(first["keys"]), set(second["keys"])
    expected = {"add": one | two, "subtract": one - two, "intersect": one & two}[op]
    assert 0 < len(expected) == said["num_samples"]
    assert expected not in (one, two)
    assert set(both["keys"]) == expected
    assert (both["rule"]["type"], both["rule"]["op"]) == ("combined", op)
    code, _text, _ = carto(
        capsys, "select", trained_run.files.path, "--keys", tmp_path / "none", "--combine", op, "--out", "x"
    )
    assert code == 2


def is_inside(x, y, corners):
    """Even-odd, one edge at a time."""
    odd = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            odd = not odd
    return odd


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["train", "--corpus", "nowhere.jsonl", "--out", "OUT"], "CorpusError", "no corpus at"),
        (["train", "--corpus", "demo", "--out", "OUT", "--epochs", "0"], "ConfigError", "--epochs must be above 0"),
        (["train", "--corpus", "demo", "--out", "OUT", "--canaries", "lots"], "ConfigError", "--canaries"),
        (["train", "--corpus", "demo", "--out", "OUT", "--heads", "2"], "ConfigError", "task lstm has no --heads"),
        (
            ["train", "--corpus", "demo", "--out", "OUT", "--task", "gpt", "--hidden", "130"],
            "ConfigError",
            "hidden 130 and heads 4",
        ),
        (
            ["train", "--corpus", "demo", "--out", "OUT", "--model-size", "gpt2-small"],
            "UnknownNameError",
            "unknown model size of task lstm 'gpt2-small'",
        ),
        (
            ["train", "--corpus", "demo", "--out", "OUT", "--vocabulary", "gpt2", "--vocab-size", "300"],
            "ConfigError",
            "got --vocab-size 300",
        ),
        (
            ["train", "--corpus", "demo", "--out", "OUT", "--task", "gpt", "--context", "20"],
            "ConfigError",
            "the longest canary has",
        ),
        (["train", "--corpus", "demo", "--out", "RUN"], "RunExists", "choose another --out"),
        (["score", "nope"], "RunNotFound", "no run 'nope'"),
        (["score", "RUN", "--y", "vibes"], "UnknownNameError", "unknown score 'vibes'; choose one of"),
        (["score", "RUN", "--eps", "2"], "ConfigError", "--eps is a quantile"),
        (["audit", "RUN", "vibes"], "UnknownNameError", "unknown audit 'vibes'"),
        (["select", "RUN", "--out", "OUT"], "ConfigError", "exactly one of"),
        (["select", "RUN", "--top", "0.1", "--out", "OUT"], "ConfigError", "--top and --by go together"),
        (["select", "RUN", "--quadrant", "nice", "--out", "OUT"], "SelectionError", "unknown quadrant 'nice'"),
        (["select", "RUN", "--polygon", "nowhere.json", "--out", "OUT"], "SelectionError", "nowhere.json"),
        (["plan", "RUN", "nowhere.json", "--action", "prune"], "SelectionError", "nowhere.json"),
        (["plan", "RUN"], "ConfigError", "--policy quadrants"),
        (["plan", "RUN", "--policy", "deduplicate", "--gamma", "3"], "ConfigError", "belong to --policy quadrants"),
        (["export", "RUN", "nowhere", "--out", "OUT"], "PlanError", "plan.json cannot be read"),
        (["train", "--corpus", "demo"], "MissingParameter", "--out"),
        (["fly"], "UsageError", "fly"),
    ],
)
def test_a_users_mistake_gets_one_line_and_code_2(capsys, trained_run, tmp_path, arguments, error, said):
    places = {"RUN": str(trained_run.files.path), "OUT": str(tmp_path / "out")}
    arguments = [places.get(a, a) for a in arguments]

    code, out, err = carto(capsys, *arguments, "--json")

    assert code == 2
    assert json.loads(out)["error"] in (error, "NoSuchCommand")
    assert said in json.loads(out)["message"]
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_audit_prints_calibration_alone(capsys, trained_run):
    code, out, _ = carto(capsys, "audit", trained_run.files.path, "extraction", "--json")

    assert code == 0
    assert set(json.loads(out)["extraction"]["summary"]) == {"calibration"}


def test_exposure_is_ranked_among_as_many_references_as_were_asked_for(capsys, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run.files.path, run)

    code, out, _ = carto(capsys, "audit", run, "exposure", "--references", "8", "--json")
    refused, _, said = carto(capsys, "audit", run, "exposure", "--references", "0")

    assert code == 0
    assert json.loads(out)["exposure"]["summary"]["num_references"] == 8
    assert refused == 2
    assert "--references" in said


def test_runs_lists_what_is_there(capsys, trained_run, tmp_path):
    _, out, _ = carto(capsys, "runs", "--runs-root", trained_run.files.path.parent, "--json")
    assert [row["run"] for row in json.loads(out)["runs"]] == ["trained"]

    _, out, _ = carto(capsys, "runs", "--runs-root", tmp_path)
    assert "carto_core demo" in out


def test_a_busy_port_is_said_and_without_one_the_next_is_taken():
    import socket

    from carto_core.errors import ConfigError
    from carto_core.ui.launch import FIRST_PORT, free_port

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        with pytest.raises(ConfigError, match=r"port \d+ is busy"):
            free_port(busy.getsockname()[1])
    assert free_port(None) >= FIRST_PORT


def test_doctor_and_version_answer_in_a_process_of_their_own():
    command = [sys.executable, "-m", "carto_core"]

    facts = json.loads(
        subprocess.run([*command, "doctor", "--json"], capture_output=True, check=True, text=True).stdout
    )

    assert {"torch", "duckdb", "cuda", "num_runs"} <= set(facts)
    assert (
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        .stdout.strip()
        .endswith("0.1.0")
    )


def test_a_run_of_during_losses_alone_without_canaries_is_scored_and_resumed_as_complete(capsys, tmp_path):
    out, quick = tmp_path / "runs" / "mine", [*QUICK[:6], "--canaries", "none", "--losses", "during"]
    code, _, _ = carto(capsys, "train", "--corpus", write_corpus(tmp_path, "txt"), *quick, "--out", out)
    assert code == 0

    code, text, _ = carto(capsys, "score", out, "--eps-mode", "snapshot", "--json")

    assert code == 0
    assert json.loads(text)["score_kind"] == "during"
    assert json.loads(text)["eps"] is None
    code, text, _ = carto(capsys, "audit", out, "--json")
    assert json.loads(text)["extraction"]["summary"]["calibration"]["inserted"]["rate"] is None
    code, text, _ = carto(capsys, "train", "--resume", "--out", out, "--json")
    assert json.loads(text)["status"] == "complete"
    code, _, err = carto(capsys, "train", "--out", tmp_path / "new")
    assert code == 2
    assert "needs --corpus" in err


def test_corpus_lists_what_there_is_and_says_where_the_bundled_one_lies(capsys, tmp_path):
    code, out, _ = carto(capsys, "corpus", "--out", tmp_path, "--json")
    listed = {row["name"]: row for row in json.loads(out)["corpora"]}
    assert code == 0
    assert list(listed) == ["demo", "sotu", "mail", "man"]
    assert listed["demo"]["fetched"]
    assert not listed["sotu"]["fetched"]
    assert listed["sotu"]["path"] == str(tmp_path / "sotu.jsonl")

    code, out, _ = carto(capsys, "corpus", "demo", "--json")
    assert json.loads(out)["path"].endswith("data/demo/demo-mix.jsonl")
    assert json.loads(out)["notes"] == []

    code, out, _ = carto(capsys, "corpus", "enron", "--json")
    assert code == 2
    assert json.loads(out)["error"] == "UnknownNameError"


def test_measure_says_that_retrains_come_from_several_devices(capsys, monkeypatch, tmp_path):
    tiny.make_run(tmp_path / "tiny")
    arms = [{"arm": "plan", "seed": seed, "device": device} for seed, device in enumerate(("cpu", "cuda"))]
    monkeypatch.setattr(measuring, "measure_plans", lambda run, plan_dirs, **how: [{"arms": arms, "effects": []}])

    code, text, _ = carto(capsys, "measure", tmp_path / "tiny", tmp_path / "plan")

    assert code == 0
    assert "more than one device (1 on cpu, 1 on cuda)" in text
