"""One sample: its text with every token's loss, its own trajectory, its scores; for a canary, what the model continues."""

from __future__ import annotations

import math

import streamlit as st

from carto_core.plots.charts import trajectory_figure
from carto_core.plots.tokens import tokens_html
from carto_core.scores import SCORES
from carto_core.store.reader import Run, meta_of
from carto_core.types import SampleTable
from carto_core.ui import cache, texts
from carto_core.ui.panels.table import HIDDEN, hidden
from carto_core.ui.shell import CHART, theme


def show(run: Run, table: SampleTable, sample_id: int) -> None:
    """Draw one sample."""
    st.subheader("The sample that you picked")
    if hidden(run, table)[sample_id]:
        st.info(HIDDEN)
        return
    left, right = st.columns([7, 5])
    with left:
        _text(run, table, sample_id)
        if table.is_canary[sample_id]:
            _canary(run, int(table.canary_id[sample_id]))
    with right:
        _trajectory(run, sample_id)
        st.dataframe(_scores(table, sample_id), hide_index=True, height=230)


def _text(run: Run, table: SampleTable, sample_id: int) -> None:
    st.caption(
        "Every token on its loss under the final weights: the stronger the colour, the better the model knows it."
    )
    tokens = texts.tokens_of(run, sample_id)
    if tokens is None:
        st.text(texts.text_of(run, sample_id))
        st.caption("Colours appear after: python -m carto_core audit RUN tokens")
    else:
        st.html(tokens_html(tokens["pieces"], tokens["losses"]))
    facts = {"key": table.key[sample_id], "source": table.source[sample_id], "tokens": int(table.num_tokens[sample_id])}
    facts |= {"exact copies": int(table.scores["group_size"][sample_id])}
    row = run.query("select meta from samples where sample_id = ?", [sample_id])
    facts |= meta_of(row["meta"].iloc[0])
    st.text("\n".join(f"{name}: {texts.shown(value)}" for name, value in facts.items()))


def _canary(run: Run, canary_id: int) -> None:
    canary = cache.canaries_of(run).set_index("canary_id").loc[canary_id]
    tokens = cache.tokens_of(run, canary_id=canary_id)
    st.markdown("**Planted canary**: what the model writes after the prefix, beside the secret")
    if tokens is None:
        st.caption("Appears after: python -m carto_core audit RUN tokens")
        return
    decoded, secret = str(tokens["decoded"]), str(canary["secret"])
    prefix, said = texts.shown_parts(str(canary["prefix"]), secret)
    st.text(f"prefix   {prefix}\nsecret   {said}\ndecoded  {texts.shown_parts(str(canary['prefix']), decoded)[1]}")
    st.markdown("**Extracted: the model gives the secret away.**" if decoded == secret else "Not extracted.")


def _trajectory(run: Run, sample_id: int) -> None:
    epochs, losses = cache.trajectories_of(run)
    st.markdown("**Its loss over training, against all samples** (band 10–90 %)")
    figure = trajectory_figure(
        epochs,
        selected=losses[:, [sample_id]],
        rest=losses[:, : cache.BAND_SAMPLES],
        theme=theme(),
        single="this sample",
    )
    st.plotly_chart(
        figure,
        theme=None,
        key="detail_trajectory",
        config=CHART,
        alt="Loss of this sample over training",
    )


def _scores(table: SampleTable, sample_id: int) -> list[dict[str, str]]:
    rows = []
    for name, score in SCORES.items():
        value = float(table.scores[name][sample_id])
        shown = "unknown" if math.isnan(value) else f"{value:.4g}"
        rows.append({"score": score.title, "value": shown, "unit": score.unit, "higher means": score.higher_means})
    return rows
