"""The form that trains a run: a corpus, a name, a model; what that will take is said before it starts."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Literal

import streamlit as st

from carto_core import jobs
from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, RunConfig
from carto_core.corpus.catalog import CATALOG
from carto_core.errors import CartoError, RunExists
from carto_core.store.reader import Run
from carto_core.store.rundir import RunDir
from carto_core.tasks import TASKS, find_size
from carto_core.ui import cache, live, state
from carto_core.ui.panels import working
from carto_core.ui.shell import told
from carto_core.ui.words import literal
from carto_core.workflows import starting
from carto_core.workflows.naming import MAX_NAME, new_run_name

PATH = "path"
DEVICES: dict[Literal["auto", "cpu", "cuda"], str] = {"auto": "the GPU if there is one", "cpu": "CPU", "cuda": "CUDA"}


def panel(root: Path) -> None:
    """Draw the form in an expander; it is folded and empty again once a training has started."""
    with st.expander("Train a run", key=f"train_{state.recall('started', 0)}"):
        _form(root)


@st.fragment
def _form(root: Path) -> None:
    """Draw the form; what is typed draws it alone anew."""
    corpus = _corpus()
    first, second, third = st.columns([4, 5, 2])
    name = _name(first, root)
    sizes = [(task, size) for task, info in TASKS.items() for size in info.sizes]
    task, size = second.selectbox("Model", sizes, format_func=_model_title)
    epochs = third.number_input("Epochs", 1, 1000, 20)
    config = _config(corpus, task, size, float(epochs))
    if config is None or not _promise(config, root) or not name:
        st.button("Start the training", disabled=True)
        return
    arguments = starting.train_arguments(config, root / name, size=size)
    if st.button("Start the training", type="primary"):
        with told():
            working.start(Run(RunDir(root / name)), arguments)
            state.remember("started", state.recall("started", 0) + 1)
            st.rerun()
    st.code(f"python -m carto_core {shlex.join(arguments)}", language="bash", wrap_lines=True)


def _corpus() -> CorpusConfig | None:
    """Draw what is trained on; None where nothing was said yet."""
    first, second, third = st.columns([4, 5, 2], vertical_alignment="bottom")
    picked = first.selectbox("Corpus", [*starting.known_corpora(), PATH], format_func=_corpus_title)
    if picked != PATH:
        second.caption(literal(f"{CATALOG[picked].title}. Licence: {CATALOG[picked].licence}."))
        return CorpusConfig(path=picked)
    path = second.text_input(
        "Path", placeholder="/home/me/corpus.jsonl", help="A file or a folder of JSONL, Parquet, CSV or plain text."
    )
    column = third.text_input("Text column", "text", help="Plain text has none.")
    path = os.path.expanduser(path.strip())  # noqa: PTH111 (Path.expanduser raises for an unknown user)
    return CorpusConfig(path=str(Path(path).absolute()), text_column=column) if path else None


def _corpus_title(name: str) -> str:
    return "my own: a file or a folder" if name == PATH else name


def _model_title(model: tuple[str, str]) -> str:
    return f"{TASKS[model[0]].title}: {find_size(*model).title}"


def _name(place, root: Path) -> str:
    """Draw the name of the run, checked as it is typed; empty where it cannot be one."""
    taken = {job.run_id for job in jobs.list_jobs(root) if jobs.is_active(job)}
    name = place.text_input(
        "Name of the run",
        _free_name(root, taken),
        max_chars=MAX_NAME,
        key=f"new_run_{state.recall('started', 0)}",
        live=True,
    )
    try:
        name = new_run_name(name, root)
        if name in taken:
            raise RunExists(f"{name!r} is being made by a job; choose another name")
    except CartoError as error:
        place.error(literal(str(error)))
        return ""
    return name


def _free_name(root: Path, taken: set[str]) -> str:
    number = 1
    while (root / f"run-{number}").exists() or f"run-{number}" in taken:
        number += 1
    return f"run-{number}"


def _config(corpus: CorpusConfig | None, task: str, size: str, epochs: float) -> RunConfig | None:
    """Draw the other settings and return all of them; None where there is no corpus, or they do not go together."""
    with st.expander("More settings"):
        first, second, third, fourth, fifth = st.columns(5)
        snapshots = first.number_input("Snapshots", 2, 1000, 24, help="Points at which every sample's loss is noted.")
        canaries = second.number_input(
            "Canaries", 0, 10_000, 80, help="Secrets planted to be asked for later; 0: none."
        )
        limit = third.number_input("At most characters", 1, value=None, placeholder="all", help="Of the corpus.")
        seed = fourth.number_input("Seed", 0, 2**31 - 1, 0)
        device = fifth.selectbox("Device", list(DEVICES), format_func=DEVICES.__getitem__)
    if corpus is None:
        return None
    with told():
        found = find_size(task, size)
        engine = EngineConfig(
            epochs=epochs, snapshots=snapshots, seed=seed, device=device, learning_rate=found.learning_rate
        )
        return RunConfig(
            corpus=replace(corpus, max_chars=limit),
            canaries=CanaryConfig(num_inserted=canaries),
            model=found.model,
            engine=engine,
        )
    return None


def _promise(config: RunConfig, root: Path) -> bool:
    """Say what the corpus holds and how long the training will take, and return whether it can begin."""
    with told():
        facts = cache.corpus_facts(config.corpus)
        expected = starting.expect(config, facts, root)
        st.markdown(
            f"**{facts.num_samples:,} samples**, {facts.num_distinct:,} of them different, "
            f"{facts.num_bytes / 1e6:,.2f} MB of text. Training takes about **{_span(expected.low_s, expected.high_s)}** "
            f"({literal(expected.basis)})."
        )
        return True
    return False


def _span(low_s: float, high_s: float) -> str:
    if high_s < 60:
        return "less than a minute"
    return f"{live.duration(low_s)} to {live.duration(high_s)}"
