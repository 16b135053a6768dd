"""The verb `report`: gather what is known of a run and a plan, and write it as one file. Never reaches torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carto_core.audits import AUDITS
from carto_core.errors import ConfigError, PlanError
from carto_core.export import actions_of, read_plan
from carto_core.masking import mask
from carto_core.preview.effects import read_measurement
from carto_core.probes import PROBES
from carto_core.quadrants import Cuts
from carto_core.quotas import remaining_near_duplicates
from carto_core.report.document import report_html
from carto_core.report.facts import Facts, Judged, ShownText
from carto_core.report.measured import verdict
from carto_core.report.words import axes_of, axis_of
from carto_core.scores import SCORES
from carto_core.scores.labels import known_labels, sides
from carto_core.scores.quality import detector_quality
from carto_core.scores.recommendation import LITERAL
from carto_core.selection import Rule
from carto_core.store.reader import Run
from carto_core.store.rundir import now, replacing
from carto_core.types import Plan, SampleTable, Selection
from carto_core.workflows import light, previewing


def write_report(
    run: Run, plan_dir: str | Path, *, out: str | Path | None = None, with_texts: int = 0, masked: bool = False
) -> dict[str, Any]:
    """Write the report of a run and a plan, and return where it is and what it says, JSON-ready.

    Args:
        run: a scored run.
        plan_dir: see `light.save_plan`.
        out: the file; default `RUN/plans/HASH/report.html`.
        with_texts: how many of the most memorized affected samples to print in full.
        masked: see `gather`.

    Raises:
        PlanError: the plan cannot be read.
        ConfigError: `with_texts` is negative.
        DiskError: the file cannot be written.
    """
    facts = gather(run, plan_dir, with_texts=with_texts, masked=masked)
    path = Path(out) if out is not None else run.files.plans / facts.plan_id / "report.html"
    text = report_html(facts)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    answer = verdict(facts)
    return {
        "path": str(path),
        "run": facts.run_id,
        "plan_sha256": facts.plan_facts["plan_sha256"],
        "num_affected": int(facts.plan.affected.sum()),
        "measured": facts.measured is not None,
        "verdict": answer.kind,
        "headline": answer.headline,
        "roles": list(facts.roles),
        "num_texts": len(facts.texts),
    }


def gather(
    run: Run, plan_dir: str | Path, *, with_texts: int = 0, table: SampleTable | None = None, masked: bool = False
) -> Facts:
    """Return all that a report says of a run and a plan; of the report half only what may be looked at.

    Args:
        run: a scored run.
        plan_dir: see `light.save_plan`.
        with_texts: how many affected samples to print in full, the most memorized first.
        table: of the run, where the caller has it.
        masked: hide personal data that `masking` knows, in texts, keys, sources and what was searched for.

    Raises:
        PlanError: the plan cannot be read, or its rule names a score that the run does not have.
        RunCorrupt: a measurement or an audit is damaged.
        ConfigError: `with_texts` is negative.
    """
    if with_texts < 0:
        raise ConfigError(f"--with-texts must be 0 or more, got {with_texts}")
    table = table or light.load_table(run)
    plan, plan_facts = read_plan(plan_dir, table)
    canaries, roles = run.canaries(), light.roles_shown(run)
    axis, cuts = axis_of(plan.rule), _cuts(run, plan.rule, table)
    folds = light.fold_facts(run)
    facts = Facts(
        manifest=run.manifest,
        table=table,
        plan=plan,
        plan_facts=plan_facts,
        estimate=_estimate(run, table, plan),
        measured=_measurement(run, plan_facts),
        audits={name: light.read_audit(run, name) for name in AUDITS},
        cuts=cuts,
        axis=axis,
        roles=roles,
        canaries=_touched(plan, table, canaries, roles),
        near_left=_near_left(run, plan),
        judged=tuple(_judged(table, canaries, roles, axis=axis or cuts.y)),
        probes=tuple(name for name in PROBES if (run.files.probes / f"{name}.parquet").is_file()),
        fold_models=None if folds is None else int(folds["models"]),
        texts=_texts(run, plan, table, canaries, roles, cuts=cuts, axis=axis or cuts.y, count=with_texts),
        is_masked=False,
        created=now(),
    )
    return _masked(facts) if masked else facts


def _masked(facts: Facts) -> Facts:
    texts = [
        dataclasses.replace(shown, key=mask(shown.key), source=mask(shown.source), text=mask(shown.text))
        for shown in facts.texts
    ]
    sources, place = np.unique(facts.table.source.astype(str), return_inverse=True)
    table = dataclasses.replace(facts.table, source=np.array([mask(name) for name in sources], object)[place])
    plan = dataclasses.replace(facts.plan, rule=_masked_rule(facts.plan.rule))
    return dataclasses.replace(facts, texts=tuple(texts), table=table, plan=plan, is_masked=True)


def _masked_rule(part: Any) -> Any:
    """Return a rule to be read, and not to be resolved: every text in it masked."""
    if isinstance(part, dict):
        return {name: _masked_rule(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_masked_rule(value) for value in part]
    return mask(part) if isinstance(part, str) else part


def _estimate(run: Run, table: SampleTable, plan: Plan) -> dict[str, Any] | None:
    estimator = previewing.estimator_of(run, table=table)
    return None if estimator is None else previewing.estimate(estimator, plan, run).to_dict()


def _cuts(run: Run, rule: Rule, table: SampleTable) -> Cuts:
    """Return the map that a rule speaks of: its own axes and cuts, else the run's."""
    named = {name for name in (axis_of(rule), *[(axes_of(rule) or {}).get(end) for end in "xy"]) if name}
    unknown = sorted(named - set(table.scores))
    if unknown:
        raise PlanError(
            f"the plan's rule names {', '.join(unknown)}, which run {run.run_id} was not scored with; "
            f"run: python -m carto_core score {run.run_id}"
        )
    part, saved = axes_of(rule), Cuts.of(table)
    if part is None or ("tau_x" not in part and (part["x"], part["y"]) == (saved.x, saved.y)):
        return saved
    if "tau_x" in part:
        return Cuts(part["x"], part["y"], part["tau_x"], part["tau_y"])
    config = light.score_config(run)
    return Cuts.at_percentiles(table.scores, x=part["x"], y=part["y"], cut_x=config.cut_x, cut_y=config.cut_y)


def _measurement(run: Run, plan_facts: dict[str, Any]) -> dict[str, Any] | None:
    return read_measurement(run.files.previews / plan_facts["plan_sha256"][:16])


def _touched(
    plan: Plan, table: SampleTable, canaries: pd.DataFrame, roles: tuple[str, ...]
) -> dict[str, tuple[int, int]]:
    """Return by role how many inserted canaries the plan touches a copy of, and how many there are."""
    inserted = canaries[canaries["inserted"].astype(bool)]
    changed = table.canary_id[plan.affected]
    of_role = {role: inserted.loc[inserted["role"] == role, "canary_id"] for role in roles}
    return {role: (int(np.isin(ids, changed).sum()), len(ids)) for role, ids in of_role.items()}


def _near_left(run: Run, plan: Plan) -> int | None:
    near_group = light.near_groups(run)
    if near_group is None:
        return None
    removed = Selection(plan.rule, np.flatnonzero(plan.repeats == 0).astype(np.int32))
    return len(remaining_near_duplicates(removed, near_group).outside)


def _judged(table: SampleTable, canaries: pd.DataFrame, roles: tuple[str, ...], *, axis: str) -> list[Judged]:
    """Return the quality of the axis, of the paper's literal score and of the plain baselines, by truth and half."""
    baselines = (name for name, score in SCORES.items() if score.is_baseline)
    names = [name for name in dict.fromkeys((axis, LITERAL, *baselines)) if name in table.scores]
    judged = []
    for label in known_labels(table):
        for role in roles:
            apart = sides(table, canaries, label=label, role=role)
            for name in names:
                quality = detector_quality(table.scores[name], SCORES[name].memorized_when, apart, seed=table.seed)
                judged.append(Judged(label, role, name, quality))
    return judged


def _texts(
    run: Run,
    plan: Plan,
    table: SampleTable,
    canaries: pd.DataFrame,
    roles: tuple[str, ...],
    *,
    cuts: Cuts,
    axis: str,
    count: int,
) -> tuple[ShownText, ...]:
    """Return the most memorized affected samples; planted ones of a role that may not be looked at are passed over."""
    if not count:
        return ()
    hidden = np.isin(table.canary_id, canaries.loc[~canaries["role"].isin(roles), "canary_id"])
    ids = np.flatnonzero(plan.affected & ~hidden)
    values = SCORES[axis].sign * table.scores[axis][ids].astype(np.float64)
    ids = ids[np.argsort(np.where(np.isnan(values), np.inf, -values), kind="stable")][:count]
    quadrant, actions, values = cuts.assign(table.scores)[ids], actions_of(plan)[ids], table.scores[axis][ids]
    texts, sources = run.texts(ids.astype(np.int32)), table.source[ids]
    columns = zip(table.key[ids], sources, texts, actions, quadrant, values.tolist(), strict=True)
    return tuple(ShownText(str(key), str(source), *rest) for key, source, *rest in columns)
