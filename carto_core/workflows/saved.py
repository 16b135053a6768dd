"""Selections that people gave a name, in the run's directory: `selections/NAME.json`, a selection file with its name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carto_core.errors import SelectionError
from carto_core.rules import describe
from carto_core.store.reader import Run
from carto_core.store.rundir import beside, json_text, writing
from carto_core.types import SampleTable, Selection
from carto_core.workflows import light
from carto_core.workflows.naming import checked_name


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved selection as a list shows it.

    Attributes:
        name: of the file, without its ending.
        num_samples: None where the file cannot be read.
        words: its rule; what is wrong where the file cannot be read.
    """

    name: str
    num_samples: int | None
    words: str


def save_selection(run: Run, selection: Selection, name: str, *, table: SampleTable | None = None) -> Path:
    """Write a selection under a name that is not taken, and return the file.

    Raises:
        SelectionError: the name cannot be one, or is taken.
    """
    name = checked_name(name, error=SelectionError)
    content = light.selection_content(selection, table or light.load_table(run))
    return _write_new(run, name, {"name": name} | content)


def list_saved(run: Run) -> list[Saved]:
    """Return the saved selections in order of name; a file that cannot be read is listed as that."""
    return [_saved(path) for path in sorted(run.files.selections.glob("[!.]*.json"), key=lambda p: p.name.casefold())]


def load_saved(run: Run, name: str, *, table: SampleTable | None = None) -> Selection:
    """Return a saved selection; see `light.read_selection`. The keys decide.

    Raises:
        SelectionError: there is none of this name, or its file is damaged or belongs to another corpus.
    """
    return light.read_selection(run, _existing(run, name), table=table)


def still_names(run: Run, selection: Selection, *, table: SampleTable | None = None) -> bool:
    """Return whether a selection's rule gives the very samples that it was saved with; a rescore may have changed that."""
    try:
        found = light.select(run, selection.rule, table=table)
    except SelectionError:
        return False
    return np.array_equal(found.sample_ids, selection.sample_ids)


def rename_saved(run: Run, name: str, new: str) -> Path:
    """Give a saved selection another name, and return its new file.

    Raises:
        SelectionError: there is none of this name, its file is damaged, or the new name cannot be one or is taken.
    """
    old, new = _existing(run, name), checked_name(new, error=SelectionError)
    content = light.read_selection_file(old)
    path = _write_new(run, new, content | {"name": new})
    old.unlink(missing_ok=True)
    return path


def delete_saved(run: Run, name: str) -> None:
    """Delete a saved selection.

    Raises:
        SelectionError: there is none of this name.
    """
    _existing(run, name).unlink(missing_ok=True)


def _path(run: Run, name: str) -> Path:
    return run.files.selections / f"{checked_name(name, error=SelectionError)}.json"


def _existing(run: Run, name: str) -> Path:
    path = _path(run, name)
    if not path.is_file():
        known = ", ".join(saved.name for saved in list_saved(run)) or "none yet"
        raise SelectionError(f"run {run.run_id} has no saved selection {name!r} (there: {known})")
    return path


def _write_new(run: Run, name: str, content: dict) -> Path:
    """Write the file of a new name whole or not at all; whoever comes second finds it taken."""
    path = _path(run, name)
    with writing(path), beside(path) as temporary:
        temporary.write_text(json_text(content), encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise SelectionError(
                f"run {run.run_id} has a saved selection {name!r} already; choose another name, or rename or delete that one"
            ) from None
    return path


def _saved(path: Path) -> Saved:
    try:
        content = light.read_selection_file(path)
    except SelectionError:
        return Saved(path.stem, None, "damaged: it cannot be read")
    return Saved(path.stem, len(content["keys"]), describe(content["rule"]))
