"""What pages read, kept in memory until the run's file is replaced. Arrays are shared between sessions: never change one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pyarrow.parquet as pq
import streamlit as st

from carto_core.compare import Comparison, WhichCuts
from carto_core.config import CorpusConfig
from carto_core.corpus.files import files_read
from carto_core.errors import CorpusError
from carto_core.masking import mask_beginning
from carto_core.preview.estimate import Estimator
from carto_core.quadrants import Cuts
from carto_core.scores.agreement import agreement
from carto_core.scores.quality import Quality
from carto_core.scores.recommendation import Recommendation
from carto_core.store.reader import Run, meta_of, open_run
from carto_core.types import Float32, SampleTable
from carto_core.workflows import light, previewing
from carto_core.workflows.comparing import compare_runs, roles_shown
from carto_core.workflows.starting import CorpusFacts, inspect_corpus

SNIPPET = 140  # characters
BAND_SAMPLES = 20_000  # a band of more would look the same


def table_of(run: Run) -> SampleTable:
    """Return the run's samples and scores; those so far of a run that is live."""
    return _table(str(run.files.path), run.version)


def quality_of(run: Run, role: str, label: str, part: str = "all") -> dict[str, Quality]:
    """Return how well each score tells the two sides of a truth apart, on one half and part."""
    return _quality(str(run.files.path), run.version, role, label, part)


def default_label(run: Run) -> str:
    """Return the strongest truth that the run has."""
    return _default_label(str(run.files.path), run.version)


def agreement_of(run: Run, measure: str) -> dict[str, dict[str, Any]]:
    """Return by score the rank correlation with a truth of the fold models; empty where none were trained."""
    return _agreement(str(run.files.path), run.version, measure)


def recommended(run: Run) -> Recommendation:
    """Return the memorization axis that the calibration half speaks for, and why."""
    return _recommended(str(run.files.path), run.version)


def cuts_of(run: Run, *, x: str, y: str, cut_x: float, cut_y: float) -> Cuts:
    """Return the cuts of two scores at two percentiles."""
    return _cuts(str(run.files.path), run.version, x, y, cut_x, cut_y)


def meta_columns(run: Run) -> dict[str, np.ndarray]:
    """Return the user's own columns that samples can be coloured by: object or float64[N] by name."""
    return _meta_columns(str(run.files.path), run.version)


def snippets(run: Run, sample_ids: tuple[int, ...], *, masked: bool) -> list[str]:
    """Return the beginnings of some texts; see `texts.snippets`, which knows whether to mask."""
    return _snippets(str(run.files.path), run.version, sample_ids, masked)


def trajectories_of(run: Run) -> tuple[list[float], Float32]:
    """Return the epochs of the scored snapshots, and float32[S, N]."""
    return _trajectories(str(run.files.path), run.version)


def canaries_of(run: Run) -> pd.DataFrame:
    """Return the run's canaries, of both roles: what may be shown is for the caller to say."""
    return _canaries(str(run.files.path), run.version)


def trajectory_of(run: Run, sample_id: int | None) -> tuple[list[int], Float32]:
    """Return the optimizer steps of the scored snapshots, and float32[S] of one sample; both empty for None."""
    if sample_id is None:
        return [], np.empty(0, np.float32)
    kind = light.scored_kind(run)
    return run.snapshots(kind)["step"].tolist(), run.trajectories(kind, np.array([sample_id], np.int32))[:, 0]


def comparison_of(run_a: Run, run_b: Run, *, x: str, y: str, cuts: WhichCuts) -> Comparison:
    """Return what changed from one run to another, both placed by the scores x and y."""
    audits = tuple(_stamp(run.files.audits / "extraction.json") for run in (run_a, run_b))
    roles = roles_shown(run_a, run_b)
    places = (str(run_a.files.path), run_a.version, str(run_b.files.path), run_b.version)
    return _comparison(*places, x, y, cuts, roles, audits)


def estimator_of(run: Run) -> Estimator | None:
    """Return what gives instant estimates on a run, taught by all that was measured on it; None where it is not prepared."""
    return _estimator(str(run.files.path), run.version, _measured_so_far(run))


def cases_of(run: Run) -> list[dict[str, Any]]:
    """Return every measured plan's estimate beside its measurement; empty where the run is not prepared."""
    return _cases(str(run.files.path), run.version, _measured_so_far(run), light.roles_shown(run))


def sweep_of(run: Run, score: str, metric: str, budgets: tuple[float, ...]) -> list[tuple[float, float, float]]:
    """Return (change of perplexity, share given away, budget) of pruning growing shares by a score, as estimated."""
    return _sweep(str(run.files.path), run.version, _measured_so_far(run), score, metric, budgets)


def figure(signature: str, build: Callable[[], go.Figure]) -> go.Figure:
    """Return the figure of a signature, built where nobody has asked for it: a lasso leaves the map as it is.

    Args:
        signature: all that the figure depends on.
        build: makes it.
    """
    return _figure(signature, build)


def tokens_of(run: Run, *, sample_id: int | None = None, canary_id: int | None = None) -> dict[str, Any] | None:
    """Return pieces, losses and decoded of one sample or canary, or None where the audit has not been run."""
    path = run.files.audits / "tokens.parquet"
    if not path.is_file():
        return None
    wanted = [("sample_id", "==", sample_id)] if sample_id is not None else [("canary_id", "==", canary_id)]
    rows = pq.read_table(path, filters=wanted).to_pylist()
    return rows[0] if rows else None


def corpus_facts(corpus: CorpusConfig) -> CorpusFacts:
    """Return what a corpus holds, as long as its files stay as they are.

    Raises:
        CorpusError: see `inspect_corpus`.
    """
    stamps = []
    with suppress(OSError, CorpusError):  # reading it says what is wrong
        stamps = [_stamp(file) for file in files_read(corpus.path)]
    return _corpus_facts(corpus, tuple(stamps))


@st.cache_resource(max_entries=8, show_spinner="Reading the corpus ...")
def _corpus_facts(corpus: CorpusConfig, stamps: tuple[int, ...]) -> CorpusFacts:
    return inspect_corpus(corpus)


@st.cache_resource(max_entries=4, show_spinner="Reading the run ...")
def _table(path: str, version: tuple[int, int]) -> SampleTable:
    run = open_run(path)
    return light.load_live_table(run) if light.is_live(run) else light.load_table(run)


@st.cache_resource(max_entries=32, show_spinner=False)
def _quality(path: str, version: tuple[int, int], role: str, label: str, part: str) -> dict[str, Quality]:
    return light.quality(open_run(path), role, label=label, part=part, table=_table(path, version))


@st.cache_resource(max_entries=8, show_spinner=False)
def _default_label(path: str, version: tuple[int, int]) -> str:
    return light.default_label(_table(path, version), _canaries(path, version))


@st.cache_resource(max_entries=4, show_spinner="Comparing ranks ...")
def _agreement(path: str, version: tuple[int, int], measure: str) -> dict[str, dict[str, Any]]:
    table = _table(path, version)
    return agreement(table, table.truth[measure]) if measure in table.truth else {}


@st.cache_resource(max_entries=8, show_spinner=False)
def _recommended(path: str, version: tuple[int, int]) -> Recommendation:
    return light.recommended(open_run(path), table=_table(path, version))


@st.cache_resource(max_entries=64, show_spinner=False)
def _cuts(path: str, version: tuple[int, int], x: str, y: str, cut_x: float, cut_y: float) -> Cuts:
    return Cuts.at_percentiles(_table(path, version).scores, x=x, y=y, cut_x=cut_x, cut_y=cut_y)


@st.cache_resource(max_entries=4, show_spinner=False)
def _meta_columns(path: str, version: tuple[int, int]) -> dict[str, np.ndarray]:
    rows = [meta_of(text) for text in open_run(path).samples("sample_id, meta")["meta"]]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        numeric = all(isinstance(v, int | float) or v is None for v in values)
        columns[name] = (
            np.array(values, float) if numeric else np.array(["" if v is None else str(v) for v in values], object)
        )
    return columns


@st.cache_resource(max_entries=8, show_spinner=False)
def _snippets(path: str, version: tuple[int, int], sample_ids: tuple[int, ...], masked: bool) -> list[str]:  # noqa: FBT001 (keys the cache)
    texts = open_run(path).texts(list(sample_ids))
    begun = (mask_beginning(text, SNIPPET) if masked else text[:SNIPPET] for text in texts)
    return [short + (" …" if len(text) > SNIPPET else "") for short, text in zip(begun, texts, strict=True)]


@st.cache_resource(max_entries=16, show_spinner=False)
def _figure(signature: str, _build: Callable[[], go.Figure]) -> go.Figure:
    return _build()


@st.cache_resource(max_entries=2, show_spinner=False)
def _trajectories(path: str, version: tuple[int, int]) -> tuple[list[float], Float32]:
    run = open_run(path)
    kind = light.scored_kind(run)
    return run.snapshots(kind)["epoch"].tolist(), run.trajectories(kind)


@st.cache_resource(max_entries=4, show_spinner=False)
def _canaries(path: str, version: tuple[int, int]) -> pd.DataFrame:
    return open_run(path).canaries()


@st.cache_resource(max_entries=8, show_spinner="Comparing the runs ...")
def _comparison(
    path_a: str,
    version_a: tuple[int, int],
    path_b: str,
    version_b: tuple[int, int],
    x: str,
    y: str,
    cuts: WhichCuts,
    roles: tuple[str, ...],
    audits: tuple[int, ...],
) -> Comparison:
    tables = {"table_a": _table(path_a, version_a), "table_b": _table(path_b, version_b)}
    return compare_runs(open_run(path_a), open_run(path_b), x=x, y=y, cuts=cuts, **tables)


@st.cache_resource(max_entries=4, show_spinner="Fitting the estimate ...")
def _estimator(path: str, version: tuple[int, int], measured: tuple[int, ...]) -> Estimator | None:
    return previewing.estimator_of(open_run(path), table=_table(path, version))


@st.cache_resource(max_entries=4, show_spinner="Checking the estimate ...")
def _cases(
    path: str, version: tuple[int, int], measured: tuple[int, ...], roles: tuple[str, ...]
) -> list[dict[str, Any]]:
    estimator = _estimator(path, version, measured)
    return [] if estimator is None else previewing.calibration(open_run(path), estimator)


@st.cache_resource(max_entries=16, show_spinner=False)
def _sweep(
    path: str,
    version: tuple[int, int],
    measured: tuple[int, ...],
    score: str,
    metric: str,
    budgets: tuple[float, ...],
) -> list[tuple[float, float, float]]:
    estimator = _estimator(path, version, measured)
    return [] if estimator is None else previewing.sweep(open_run(path), estimator, score, metric, budgets)


def _measured_so_far(run: Run) -> tuple[int, ...]:
    paths = [run.files.prepared / "prepared.json", run.files.audits / "exposure.json"]
    return tuple(_stamp(path) for path in [*paths, *sorted(run.files.previews.glob("*/measure.json"))])


def _stamp(path: Path) -> int:
    """Return a number that changes when a file is written anew; 0 where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else 0
