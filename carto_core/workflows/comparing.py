"""The verb `compare`: read two scored runs and say what changed from one to the other. Never reaches torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from carto_core.compare import (
    Comparison,
    Joined,
    WhichCuts,
    canary_changes,
    common_axes,
    join,
    memorization_moves,
    new_hotspots,
    quadrant_flow,
    top_movers,
)
from carto_core.quadrants import Cuts
from carto_core.store.reader import Run
from carto_core.types import ROLES, Bool, SampleTable
from carto_core.workflows import light

SCORE_SETTINGS = ("eps_mode", "eps", "hysteresis", "burn_in")


def compare_runs(
    run_a: Run,
    run_b: Run,
    *,
    x: str | None = None,
    y: str | None = None,
    cuts: WhichCuts = "own",
    table_a: SampleTable | None = None,
    table_b: SampleTable | None = None,
) -> Comparison:
    """Return what changed from run A to run B.

    Planted copies of the report half are counted, but neither named nor listed unless both runs' manifests say that it was
    seen.

    Args:
        run_a: the earlier run, scored.
        run_b: the later one.
        x: score on x for both; None takes the one that both were cut on.
        y: score on the memorization axis, likewise.
        cuts: `own` places each run's samples by its own thresholds, `a` places both by A's.
        table_a: of run A, where the caller has it.
        table_b: of run B.

    Raises:
        CompareError: they share no sample, or were cut on different scores and none was asked for.
        RunNotSealed: one has no scores yet.
        UnknownNameError: no such score.
    """
    a, b = table_a or light.load_table(run_a), table_b or light.load_table(run_b)
    x, y = common_axes(a, b, x=x, y=y)
    joined = join(a, b, texts=(_text_numbers(run_a), _text_numbers(run_b)))
    cuts_a = _cuts(run_a, a, x, y)
    cuts_b = cuts_a if cuts == "a" else _cuts(run_b, b, x, y)
    flow = quadrant_flow(a, b, joined, cuts_a=cuts_a, cuts_b=cuts_b)
    moves = memorization_moves(a, b, joined, y=y)
    roles = roles_shown(run_a, run_b)
    hotspots, num_new = new_hotspots(b, flow, y=y, concealed=_concealed(run_b, b, roles))
    concealed = _concealed(run_a, a, roles)
    canaries, unknown = _canaries(run_a, run_b, a, b, joined, roles)
    return Comparison(
        run_a=run_a.run_id,
        run_b=run_b.run_id,
        cuts_a=cuts_a,
        cuts_b=cuts_b,
        which_cuts=cuts,
        joined=joined,
        flow=flow,
        moves=moves,
        movers=top_movers(a, moves, flow, by="rank", concealed=concealed),
        value_movers=top_movers(a, moves, flow, by="value", concealed=concealed),
        hotspots=hotspots,
        num_new_hotspots=num_new,
        canaries=canaries,
        notes=(*_notes(run_a, run_b, a, b, joined, cuts=cuts), *unknown),
    )


def roles_shown(run_a: Run, run_b: Run) -> tuple[str, ...]:
    """Return the canary roles that both runs allow to be looked at."""
    return tuple(role for role in ROLES if role in light.roles_shown(run_a) and role in light.roles_shown(run_b))


def likeliest_other(run: Run, others: Sequence[Run]) -> Run:
    """Return what a run is most likely to be compared with: its retrain, its base run, one of its corpus, or any.

    The first of `others`, of which there is at least one, wins a tie.
    """
    mine = run.manifest

    def nearness(other: Run) -> int:
        theirs = other.manifest
        if theirs.get("parent_run") in (run.run_id, *run.formerly):
            return 3
        if mine.get("parent_run") in (other.run_id, *other.formerly):
            return 2
        return int(theirs["corpus_sha256"] == mine["corpus_sha256"])

    return max(others, key=nearness)


def _text_numbers(run: Run) -> np.ndarray:
    """Return uint64[N], equal where the texts are: DuckDB's hash, so that a million texts need not be held twice."""
    return run.query("select hash(text) as number from samples order by sample_id")["number"].to_numpy(np.uint64)


def _cuts(run: Run, table: SampleTable, x: str, y: str) -> Cuts:
    """Return the run's saved cuts, or at the same percentiles of the scores asked for."""
    if (x, y) == (table.x, table.y):
        return Cuts.of(table)
    config = light.score_config(run)
    return Cuts.at_percentiles(table.scores, x=x, y=y, cut_x=config.cut_x, cut_y=config.cut_y)


def _concealed(run: Run, table: SampleTable, roles: tuple[str, ...]) -> Bool:
    canaries = run.canaries()
    return np.isin(table.canary_id, canaries.loc[~canaries["role"].isin(roles), "canary_id"])


def _canaries(
    run_a: Run, run_b: Run, a: SampleTable, b: SampleTable, joined: Joined, roles: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    """Return `canary_changes`, or nothing and why."""
    audits = [light.read_audit(run, "extraction") for run in (run_a, run_b)]
    missing = [run.run_id for run, audit in zip((run_a, run_b), audits, strict=True) if audit is None]
    if missing:
        commands = " and ".join(f"python -m carto_core audit {run_id} extraction" for run_id in missing)
        return {}, [f"Canaries are not compared: run {commands}"]
    if not (a.is_canary[joined.a] & b.is_canary[joined.b]).any():
        return {}, ["Canaries are not compared: the two runs have no planted secret in common."]
    mine, theirs = (audit["per_item"] for audit in audits if audit is not None)
    return canary_changes(a, b, joined, extraction_a=mine, extraction_b=theirs, roles=roles), []


def _notes(run_a: Run, run_b: Run, a: SampleTable, b: SampleTable, joined: Joined, *, cuts: WhichCuts) -> list[str]:
    notes = [f"{len(joined.a):,} samples are in both runs, of {len(a):,} in {a.run_id} and {len(b):,} in {b.run_id}."]
    if a.corpus_sha256 != b.corpus_sha256:
        notes[0] += " The two were trained on different corpora."
    if joined.num_other_text:
        notes.append(f"{joined.num_other_text:,} keys stand for another text in the other run, and are left out.")
    for table, rows in ((b, joined.b), (a, joined.a)):
        if held_out := int((~table.is_trained[rows]).sum()):
            notes.append(
                f"{held_out:,} of them {table.run_id} never trains on: it measures them as held-out samples, and they count "
                f"as {'gone' if table is b else 'new'}."
            )
    return notes + _different_settings(run_a, run_b) + [_about_cuts(run_a, run_b, cuts)]


def _different_settings(run_a: Run, run_b: Run) -> list[str]:
    """Return a sentence where the scores' own settings, or the models, make raw values hard to compare."""
    first, second = (light.score_config(run).to_dict() for run in (run_a, run_b))
    differing = [name for name in SCORE_SETTINGS if first[name] != second[name]]
    said = [f"The two were scored with different settings ({', '.join(differing)})."] if differing else []
    facts = [
        (run.manifest.get("config", {}).get("model"), run.manifest.get("tokenizer"), run.manifest["num_snapshots"])
        for run in (run_a, run_b)
    ]
    kinds = [run.meta().get("score_kind") for run in (run_a, run_b)]
    if facts[0] != facts[1] or kinds[0] != kinds[1]:
        said.append("Model, tokenizer or snapshots differ: compare ranks rather than values.")
    return said


def _about_cuts(run_a: Run, run_b: Run, cuts: WhichCuts) -> str:
    if cuts == "a":
        return f"Both runs are cut where {run_a.run_id} is: a sample is a new hotspot because its own scores changed."
    return (
        "Each run is cut by its own percentiles, which leave the same share beyond them whatever was cut: some samples always "
        f"move up. Cut both where {run_a.run_id} is to see whose own scores changed."
    )
