"""The evidence page: measured effects and judged detectors of the project's own benchmarks, beside the paper's claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from carto_core.errors import CartoError
from carto_core.ui.panels import detectors, effects
from carto_core.ui.shell import open_page, told

RESULTS = Path(__file__).parents[3] / "docs" / "results"
COMMANDS = {
    "paper_table.json": "python -m benchmarks.paper_table --experiments 1",
    "half_weight.json": "python -m benchmarks.paper_table --experiments 2",
    "detectors.json": "python -m benchmarks.detectors",
}
CLAIM = (
    "The paper's claims (GenDataCarto, arXiv 2509.00083): **more than 40 % less canary extraction** at 10 % pruned, for at "
    "most **0.5 % more perplexity**; in its LSTM experiment extraction falls from 100 % to 40 % at 5 % pruned. Both are "
    "against the unchanged model; below, a random cut of the same size stands beside."
)


def page() -> None:
    """Draw the page; it needs no run."""
    open_page("evidence")
    st.title("What was measured, and what does it show?")
    with told():
        st.markdown(CLAIM)
        _effects(
            "paper_table.json",
            "Does pruning what the score points at lower extraction more than a random cut does?",
            "Every line retrains an LSTM with planted secrets from scratch: under the plan, under a random cut of the same "
            "number of rows and length, and unchanged, paired by seed.",
        )
        _effects(
            "half_weight.json",
            "Does half the weight on hotspots lower it?",
            "The paper's second experiment: a transformer of GPT-2's architecture, from scratch, 3 epochs. Its size and "
            "device stand below. Hotspots count half; the random control halves as many random rows.",
        )
        st.subheader("Which score finds what a model gives away, on which corpus?")
        if judged := read("detectors.json"):
            detectors.panel(judged)
        else:
            _missing("detectors.json", "No comparison of detectors is kept here yet. Make one:")


def read(name: str) -> dict[str, Any] | None:
    """Return the corpora of one results file, by name; None where it is not there.

    Raises:
        CartoError: it cannot be read.
    """
    path = RESULTS / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["corpora"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CartoError(f"{path.name} cannot be read ({error}); make it anew with: {COMMANDS[name]}") from None


def _missing(name: str, what: str) -> None:
    st.info(f"{what} It trains many models; what is finished is kept and shown here.")
    st.code(COMMANDS[name], language="bash")


def _effects(file: str, question: str, what: str) -> None:
    st.subheader(question)
    corpora = {name: facts for name, facts in (read(file) or {}).items() if facts.get("lines")}
    if not corpora:
        _missing(file, "No measurement is kept here yet. Make one:")
        return
    st.caption(
        f"{what} Scores are chosen on calibration canaries, effects are those on report canaries. Intervals are paired 95 % "
        "t intervals, p is an exact sign-flip test; with many lines some will pass 0.05 by chance alone."
    )
    effects.panel(file.removesuffix(".json"), corpora)
