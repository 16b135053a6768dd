"""The verb `audit`: look at a trained model in every registered way and write what was found beside the run."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from carto_core.audits import AUDITS
from carto_core.audits.subject import Subject, load_subject
from carto_core.audits.tokens import token_table
from carto_core.errors import UnknownNameError
from carto_core.store.reader import Run
from carto_core.store.rundir import RunDir, write_json
from carto_core.store.writer import write_table
from carto_core.types import AuditResult
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable

Options = Mapping[str, Mapping[str, Any]]


def audit_run(run: Run, names: Sequence[str] = (), *, options: Options | None = None) -> dict[str, dict[str, Any]]:
    """Audit a run's final model and write `audits/NAME.json` (and tokens.parquet).

    Args:
        run: a sealed run.
        names: which audits; none means all.
        options: keyword arguments by audit, such as `{"exposure": {"num_references": 5000}}`.

    Returns:
        each audit's JSON by name.

    Raises:
        UnknownNameError: a name is not in `AUDITS`, or an option is not one of its audit's.
        RunNotSealed, RunCorrupt: see `load_subject`.
    """
    options = options or {}
    for name in [*names, *options]:
        if name not in AUDITS:
            raise UnknownNameError.of("audit", name, AUDITS)
    for name, chosen in options.items():
        _check_options(name, chosen)
    wanted = list(names) or list(AUDITS)
    progress = ProgressFile(run.files.audits / "progress.jsonl")
    written = {}
    with stoppable(), device_slot(run.files, progress, work="audit"):
        subject = load_subject(run)
        for done, name in enumerate(wanted):
            progress(f"audit: {AUDITS[name].title}", done, len(wanted))
            written[name] = audit_subject(run.files, name, subject, options.get(name, {}))
        progress("complete", len(wanted), len(wanted))
    return written


def audit_subject(files: RunDir, name: str, subject: Subject, options: Mapping[str, Any]) -> dict[str, Any]:
    """Run one audit of a model, write what it found beside the run, and return it."""
    result = dataclasses.asdict(_function(name)(subject, **options))
    if name == "tokens":
        write_table(token_table(subject), files.audits / "tokens.parquet")
    write_json(files.audits / f"{name}.json", result)
    return result


def _function(name: str) -> Callable[..., AuditResult]:
    module, function = AUDITS[name].function.split(":")
    return getattr(importlib.import_module(module), function)


def _check_options(name: str, chosen: Mapping[str, Any]) -> None:
    known = [p.name for p in inspect.signature(_function(name)).parameters.values() if p.kind == p.KEYWORD_ONLY]
    for option in chosen:
        if option not in known:
            raise UnknownNameError.of(f"option of the audit {name}", option, known or ["none, it has no options"])
