import json

import numpy as np
import pytest

from carto_core.errors import TrainingDiverged
from carto_core.tasks.language import LanguageTask
from carto_core.workflows import light
from carto_core.workflows.training import train_run
from tests.texts import sentences, tiny_config, write_jsonl


def test_a_training_counts_near_duplicates_by_itself(trained_run):
    counted = light.load_table(trained_run).scores["near_duplicates"]

    assert "near_duplicates" not in light.missing_probes(trained_run)
    samples = trained_run.samples()
    copies = samples.groupby("group_id")["sample_id"].transform("size").to_numpy()
    assert (counted >= copies - 1).all()
    assert (counted > 0).any()
    assert np.isfinite(counted).all()


def test_a_loss_that_is_no_number_fails_the_run_by_name_and_keeps_what_was_seen_before(tmp_path, monkeypatch):
    measured = []

    def break_third(task, model, device, measure=LanguageTask.measure):
        losses = measure(task, model, device)
        measured.append(losses)
        losses[[2, 5]] = np.inf if len(measured) == 3 else losses[[2, 5]]
        return losses

    monkeypatch.setattr(LanguageTask, "measure", break_third)
    config = tiny_config(write_jsonl(tmp_path / "corpus.jsonl", sentences(120)), epochs=2)

    with pytest.raises(TrainingDiverged, match=r"Samples: 2, the first 'k\d+', 'k\d+'"):
        train_run(config, tmp_path / "run")

    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["status"] == "failed"
    assert "snapshot 2 (step" in manifest["error"]
    assert [s["snapshot"] for s in json.loads((tmp_path / "run" / "parts" / "snapshots.json").read_text())] == [0, 1]
    assert not (tmp_path / "run" / "trajectory.duckdb").exists()
