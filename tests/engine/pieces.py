"""Pieces of sweeps that other processes can import: each writes one file, or fails to."""

import json
import os
import time
from pathlib import Path

from carto_core.engine.side_by_side import Told
from carto_core.errors import TrainingDiverged
from carto_core.store.reader import open_run


def note_what_is_there(run_path, text, path):
    run = open_run(run_path)
    there = sorted(p.relative_to(run_path).as_posix() for p in run_path.rglob("*"))
    facts = {"text": text, "there": there, "run_id": run.run_id, "texts": run.samples("text")["text"].tolist()}
    path.write_text(json.dumps(facts | {"folder": str(run_path), "device": run.manifest["config"]["engine"]["device"]}))


def diverge(run_path, path):
    raise TrainingDiverged("the loss became infinite", [3, 5])


def die_until(run_path, folder, deaths, path):
    tries = len(list(Path(folder).glob("try-*")))
    (Path(folder) / f"try-{tries}").touch()
    if tries < deaths:
        os._exit(9)
    path.write_text("done")


def tell_and_go_on(run_path, folder, path):
    Path(folder, f"{path.name}.pid").write_text(str(os.getpid()))
    Told(path)("training", 1, 4)
    Path(folder, f"{path.name}.at").write_text(str(run_path))
    while True:
        time.sleep(0.05)


def sleep_deeply(run_path, folder, path):
    Path(folder, f"{path.name}.at").write_text(str(run_path))
    time.sleep(60)
