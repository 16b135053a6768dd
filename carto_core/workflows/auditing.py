"""The verb `audit`: look at a trained model in every registered way and write what was found beside the run."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from carto_core.audits import AUDITS
from carto_core.audits.subject import load_subject
from carto_core.audits.tokens import token_table
from carto_core.errors import UnknownNameError
from carto_core.store.reader import Run
from carto_core.store.rundir import write_json
from carto_core.store.writer import write_table
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable


def audit_run(run: Run, names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Audit a run's final model and write `audits/NAME.json` (and tokens.parquet).

    Args:
        run: a sealed run.
        names: which audits; none means all.

    Returns:
        each audit's JSON by name.

    Raises:
        UnknownNameError: a name is not in `AUDITS`.
        RunNotSealed, RunCorrupt: see `load_subject`.
    """
    for name in names:
        if name not in AUDITS:
            raise UnknownNameError.of("audit", name, AUDITS)
    wanted = list(names) or list(AUDITS)
    progress = ProgressFile(run.files.audits / "progress.jsonl")
    written = {}
    with stoppable(), device_slot(run.files.path.parent, progress):
        subject = load_subject(run)
        for done, name in enumerate(wanted):
            progress(f"audit: {AUDITS[name].title}", done, len(wanted))
            module, function = AUDITS[name].function.split(":")
            result = dataclasses.asdict(getattr(importlib.import_module(module), function)(subject))
            if name == "tokens":
                write_table(token_table(subject), run.files.audits / "tokens.parquet")
            write_json(run.files.audits / f"{name}.json", result)
            written[name] = result
        progress("complete", len(wanted), len(wanted))
    return written
