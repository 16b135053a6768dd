"""The verbs that need no model: score, select, plan, export. Never reaches torch, so that pages may call it.

A run goes in, files beside it or plain values come out. Each verb that works on the `SampleTable` takes one that the
caller has kept, so that a page need not load it at every click.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from carto_core import interventions, quadrants
from carto_core.audits.shapes import SHAPES as AUDIT_SHAPES
from carto_core.config import RunConfig, ScoreConfig
from carto_core.engine.order import total_steps
from carto_core.engine.side_by_side import num_workers
from carto_core.errors import PlanError, RunCorrupt, RunNotSealed, SelectionError, UnknownNameError
from carto_core.export import Outgoing, export_corpus, export_plan, read_plan, read_plan_json, write_plan
from carto_core.preview.arms import PREVIEW_AUDITS, WITH_MEMBERSHIP, Arm, Equal, arms_of
from carto_core.probes import DEFAULT_MODELS, PROBES, require_models
from carto_core.quadrants import Cuts
from carto_core.rules import canonical, check_form
from carto_core.scores import SCORES, ScoreInputs, ScoreTable, compute_scores
from carto_core.scores.agreement import MEASURES, agreement
from carto_core.scores.labels import LABELS, TRUTHS, known_labels, sides, slice_names
from carto_core.scores.quality import Quality, qualities
from carto_core.scores.recommendation import LITERAL, Recommendation, recommend
from carto_core.scores.tokenwise import zlib_bytes
from carto_core.selection import Rule, resolve
from carto_core.store.probes import read_probes
from carto_core.store.reader import Run
from carto_core.store.rundir import update_manifest, write_json
from carto_core.store.sealed import replace_scores
from carto_core.store.shapes import COUNT, NUMBER, OBJECT, SHA256, TEXT, exactly, is_unicode, maybe, read_json
from carto_core.types import ROLES, Float32, Int32, Plan, SampleTable, Selection, SnapshotKind
from carto_core.workflows import lineage

FOLDS = {"models": COUNT, "judging": COUNT} | {name: maybe(NUMBER) for name in ("spearman", "corrected", "ceiling")}
FOLDS |= {"accuracy?": {"ceiling?": maybe(NUMBER)}}
SELECTION = {"version": exactly(1), "rule": OBJECT, "keys": [TEXT], "corpus_sha256": SHA256, "num_samples": COUNT}
SELECTION |= {"run_id?": TEXT, "notes?": [TEXT], "name?": TEXT}
SELECTION_CURE = "make a selection file with: python -m carto_core select"

MIN_LIVE = 2  # snapshots; one has no trajectory


def load_table(run: Run) -> SampleTable:
    """Return what selections, plans and maps need to know of a scored run.

    Raises:
        RunNotSealed: the run is still being written, or has no scores yet.
    """
    scores, meta = run.scores(), checked_meta(run)
    if scores["sample_id"].tolist() != list(range(run.num_samples)):
        raise RunCorrupt(
            f"run {run.run_id} has no score of some samples; score it anew: python -m carto_core score {run.run_id}"
        )
    # A run that was scored before a score was invented has no column of it.
    known = {name: scores[name].to_numpy(np.float32, na_value=np.nan) for name in SCORES if name in scores}
    return _table(run, known, _cuts_in(meta, known, run))


def checked_meta(run: Run) -> dict[str, str | None]:
    """Return the `meta` table of a sealed run, after comparing it with `run.json`.

    Raises:
        RunCorrupt: the two speak of another corpus, seed or number of samples, or of another version of the contract.
    """
    meta, manifest = run.meta(), run.manifest
    found = {name: meta.get(name) for name in ("contract_version", "corpus_sha256", "seed")}
    found["num_samples"] = str(run.num_samples)
    for name, value in found.items():
        if value != str(manifest[name]):
            raise RunCorrupt(
                f"run {run.run_id}: {name} is {manifest[name]} in run.json and {value} in trajectory.duckdb; "
                "copy back the file that was changed"
            )
    return meta


def _cuts_in(meta: dict[str, str | None], scores: dict[str, Float32], run: Run) -> Cuts:
    """Return the saved cuts, checked."""
    try:
        cuts = Cuts(
            str(meta["quadrant_x"]),
            str(meta["quadrant_y"]),
            float(meta["tau_d"] or "nan"),
            float(meta["tau_m"] or "nan"),
        )
    except (KeyError, ValueError):
        cuts = None
    if cuts is None or cuts.x not in scores or cuts.y not in scores:
        raise RunCorrupt(
            f"run {run.run_id} lacks its axes or cuts; score it anew: python -m carto_core score {run.run_id}"
        )
    return cuts


def is_live(run: Run) -> bool:
    """Return whether a run's scores are not settled: it trains or was stopped at it, or has ended and is being scored."""
    return not run.is_sealed or (not run.files.table("scores").is_file() and run.status != "complete")


def snapshots_so_far(run: Run) -> tuple[int, int | None]:
    """Return how many snapshots a live run can be scored by so far, and how many it will have; None where a foreign loop decides."""
    manifest = run.manifest
    if run.is_foreign:
        return len(run.snapshots(scored_kind(run))), None
    engine = RunConfig.from_dict(manifest["config"]).engine
    try:
        steps = manifest.get("steps") or total_steps(engine, run.drawn()[0])
    except RunCorrupt:
        return 0, engine.snapshots  # its samples are not written yet
    return len(run.snapshots(scored_kind(run))), min(engine.snapshots, steps)


def how_far(run: Run) -> str:
    """Return how far a live run is, in words: `3 of 24 snapshots`, or `3 snapshots` where nobody knows how many come."""
    taken, wanted = snapshots_so_far(run)
    return f"{taken} snapshot{'' if taken == 1 else 's'}" if wanted is None else f"{taken} of {wanted} snapshots"


def load_live_table(run: Run) -> SampleTable:
    """Return the table of a live run, scored by the complete snapshots so far; nothing is written.

    Scores that need a probe are unknown, so the memorization axis is the saved one where it can be had, else the literal.

    Raises:
        RunNotSealed: there are fewer than `MIN_LIVE` snapshots yet.
    """
    try:
        return _live_table(run)
    except (RunCorrupt, RunNotSealed):
        if not run.is_sealed:
            raise
        return _live_table(run)  # its parts became the sealed file while they were read


def _live_table(run: Run) -> SampleTable:
    config = score_config(run)
    if snapshots_so_far(run)[0] < MIN_LIVE:
        raise RunNotSealed(f"run {run.run_id} has {how_far(run)} so far; a map needs at least {MIN_LIVE}")
    scores = compute_scores(_inputs(run, _losses_to_score(run)[1]), config).scores
    y = LITERAL if config.y is None or np.isnan(scores[config.y]).all() else config.y
    cuts = Cuts.at_percentiles(scores, x=config.x, y=y, cut_x=config.cut_x, cut_y=config.cut_y)
    return _table(run, scores, cuts)


def scored_kind(run: Run) -> SnapshotKind:
    """Return the kind of losses that a run's scores are made of, or will be."""
    if run.is_sealed and (kind := run.meta().get("score_kind")) is not None:
        return "during" if kind == "during" else "after"
    return "after" if len(run.snapshots("after")) else "during"


def _table(run: Run, scores: dict[str, Float32], cuts: Cuts) -> SampleTable:
    samples = run.samples("sample_id, key, source, group_id, num_tokens, canary_id")
    meta = run.meta() if run.is_sealed else run.manifest
    _require_whole(run, samples)
    probes = read_probes(run.files, num_samples=len(samples))
    return SampleTable(
        run_id=run.run_id,
        corpus_sha256=str(meta["corpus_sha256"]),
        seed=int(meta["seed"] or 0),
        key=samples["key"].to_numpy(object),
        source=samples["source"].to_numpy(object),
        group_id=samples["group_id"].to_numpy(np.int32),
        num_tokens=samples["num_tokens"].to_numpy(np.int32),
        canary_id=samples["canary_id"].to_numpy(np.float64, na_value=np.nan),
        scores=scores,
        x=cuts.x,
        y=cuts.y,
        tau_x=cuts.tau_x,
        tau_y=cuts.tau_y,
        truth={name: probes[name] for name in TRUTHS if name in probes},
        repeats=run.drawn()[0],
        formerly=run.formerly,
    )


def _require_whole(run: Run, samples: pd.DataFrame) -> None:
    """Raise RunCorrupt unless the samples are numbered 0..N-1, and each has a key of its own, a group and a length."""
    keys = samples["key"].tolist()
    needed = samples[["key", "source", "group_id", "num_tokens"]].to_numpy(object)
    problem = ""
    if samples["sample_id"].tolist() != list(range(len(samples))):
        problem = f"sample_id is not 0 to {len(samples) - 1:,}, each once"
    elif pd.isna(needed).any():
        problem = "a key, source, group_id or num_tokens is null"
    elif len(set(keys)) < len(keys):
        problem = f"the key {next(key for key, count in Counter(keys).items() if count > 1)!r} stands twice"
    elif min(samples["num_tokens"], default=0) < 0:
        problem = "a num_tokens is below 0"
    if problem:
        raise RunCorrupt(f"run {run.run_id}, table samples: {problem}; copy the run back")


def score_config(run: Run) -> ScoreConfig:
    """Return the settings that the run was last scored with; the defaults where it never was."""
    return ScoreConfig.from_dict(run.manifest.get("scores") or {})


def score(run: Run, config: ScoreConfig) -> dict[str, Any]:
    """Compute all scores and quadrants of a sealed run anew, and put them in place of the old ones.

    Uses the `after` losses, or the `during` ones of a run that has no others; `meta` says which.

    Returns:
        JSON-ready summary: settings as resolved, cuts, how many samples each quadrant holds, ties in words.

    Raises:
        RunNotSealed: the run is still being written.
        RunCorrupt: it holds no snapshot.
        UnknownNameError: an axis is no score.
    """
    run.require_sealed()
    checked_meta(run)
    for name in (config.x, config.y):
        if name is not None and name not in SCORES:
            raise UnknownNameError.of("score", name, SCORES)
    kind, losses = _losses_to_score(run)
    probed = [name for name in PROBES if (run.files.probes / f"{name}.parquet").is_file()]
    computed = compute_scores(_inputs(run, losses), config)
    unknown = Cuts(config.x, LITERAL, math.nan, math.nan)
    recommendation = recommended(run, table=_table(run, computed.scores, unknown))
    cuts = Cuts.at_percentiles(
        computed.scores, x=config.x, y=config.y or recommendation.score, cut_x=config.cut_x, cut_y=config.cut_y
    )
    labels = cuts.assign(computed.scores)
    meta = _score_meta(config, computed, kind=kind, cuts=cuts)
    replace_scores(run.files, _scores_table(computed.scores, labels), meta)
    update_manifest(run.files, scores=config.to_dict(), scored_probes=probed)
    x, y = SCORES[cuts.x], SCORES[cuts.y]
    return {
        "run": run.run_id,
        "num_samples": len(labels),
        "num_snapshots": len(losses),
        **meta,
        "burn_in": computed.burn_in,
        "eps": computed.eps,
        "tau_d": cuts.tau_x,
        "tau_m": cuts.tau_y,
        "quadrants": quadrants.counts(labels),
        "recommended": dataclasses.asdict(recommendation),
        "notes": [
            quadrants.describe_cut(computed.scores[x.name], cuts.tau_x, title=x.title),
            quadrants.describe_cut(computed.scores[y.name], cuts.tau_y, title=y.title, memorized_when=y.memorized_when),
        ],
    }


def _inputs(run: Run, losses: Float32) -> ScoreInputs:
    samples = run.samples("sample_id, text, group_id, num_tokens")
    return ScoreInputs(
        losses=losses,
        group_id=samples["group_id"].to_numpy(np.int32),
        num_tokens=samples["num_tokens"].to_numpy(np.int32),
        zlib_bytes=zlib_bytes(samples["text"]).astype(np.int32),
        probes=read_probes(run.files, num_samples=len(samples)),
    )


def recommended(run: Run, *, table: SampleTable | None = None) -> Recommendation:
    """Return the memorization axis that this run's calibration half speaks for; see `recommendation.recommend`.

    Judged by what a twin model gives back where one was trained, else by what was inserted.
    """
    table = table or load_table(run)
    canaries = run.canaries()
    label = default_label(table, canaries)
    return recommend(
        label, lambda wanted, part: qualities(table, canaries, label=wanted, role="calibration", part=part)
    )


def roles_shown(run: Run) -> tuple[str, ...]:
    """Return the canary roles that may be looked at: `report` only once the run's manifest says that it was seen."""
    return ROLES if run.manifest.get("report_seen") else ROLES[:1]


def describe_scores(run: Run, *, table: SampleTable | None = None) -> dict[str, Any]:
    """Return every score with its definition, and its quality against every truth that the run has, JSON-ready.

    By name: `title, unit, higher_means, memorized_when, source, is_baseline`, `not_run` (a sentence, or None), `quality`
    by label, role (those that may be looked at) and part, and the rank correlations with the measures in
    `agreement.MEASURES`, each where its probe was run.
    """
    table = table or load_table(run)
    canaries = run.canaries()
    found: dict[str, Any] = {name: _definition(run, name) | {"quality": {}} for name in SCORES}
    for label in known_labels(table):
        for role in roles_shown(run):
            for part in slice_names(canaries, label):
                qualities_of_part = qualities(table, canaries, label=label, role=role, part=part)
                for name, quality in qualities_of_part.items():
                    found[name]["quality"].setdefault(label, {}).setdefault(role, {})[part] = quality.to_dict()
    for measure, column in (table.truth | table.scores).items():
        if measure in MEASURES and not np.isnan(column).all():
            for name, agreed in agreement(table, column).items():
                if name != measure:
                    found[name][measure] = agreed
    return found


def _definition(run: Run, name: str) -> dict[str, Any]:
    score = SCORES[name]
    words = ("title", "unit", "higher_means", "memorized_when", "source", "is_baseline")
    return {word: getattr(score, word) for word in words} | {"not_run": why_unknown(run, name)}


def why_unknown(run: Run, name: str) -> str | None:
    """Return why a run does not have a score that a probe fills, and the command that does; None where it does."""
    probe = SCORES[name].probe
    if probe is None or probe not in _unfilled(run):
        return None
    if probe not in possible_probes(run):
        return "not to be had: it asks the model, which another program trained"
    return f"not run; python -m carto_core probe {run.run_id} {probe}"


def possible_probes(run: Run) -> list[str]:
    """Return the probes that can be run: all, or those that ask the texts alone where the model is another program's."""
    return [name for name, probe in PROBES.items() if not (probe.needs_model and run.is_foreign)]


def missing_probes(run: Run) -> list[str]:
    """Return the possible probes whose columns the scores do not hold."""
    unfilled = _unfilled(run)
    return [name for name in possible_probes(run) if name in unfilled]


def _unfilled(run: Run) -> list[str]:
    """Return the probes that were never run, or were stopped before the run was scored anew."""
    held = run.manifest.get("scored_probes", PROBES)  # a run that was scored before this was noted holds what is there
    return [name for name in PROBES if name not in held or not (run.files.probes / f"{name}.parquet").is_file()]


def fold_facts(run: Run) -> dict[str, Any] | None:
    """Return `probes/folds.json`: how many fold models there are and how well their verdict repeats; None without any."""
    path = run.files.probes / "folds.json"
    cure = f"train the fold models again: python -m carto_core probe {run.run_id} folds"
    return read_json(path, FOLDS, cure=cure) if path.is_file() else None


def near_groups(run: Run) -> Int32 | None:
    """Return int32[N], the near-duplicate group of every sample; None where that probe was not run."""
    found = read_probes(run.files, num_samples=run.num_samples).get("near_group")
    return None if found is None else found.astype(np.int32)


def probe_minutes(run: Run, names: Sequence[str], *, models: int = DEFAULT_MODELS) -> float:
    """Return about how long some probes (none = all) will take, in minutes, from how long the base run took.

    Raises:
        UnknownNameError: a name is not in `PROBES`.
        ConfigError: see `require_models`.
        RunNotSealed: training is not over.
        RunError: a probe asks the model, which another program trained.
    """
    for name in names:
        if name not in PROBES:
            raise UnknownNameError.of("probe", name, PROBES)
    require_models(models)
    run.require_sealed()
    names = names or possible_probes(run)
    if not any(PROBES[name].needs_model for name in names):
        return 0.0
    run.require_model()
    manifest = run.manifest
    one = manifest["train_s"] - manifest["measure_s"]
    workers = num_workers(manifest)
    side_by_side = {"folds": workers}
    return sum(PROBES[n].trainings(models) * one / side_by_side.get(n, 1) for n in names) / 60


def default_label(table: SampleTable, canaries: pd.DataFrame) -> str:
    """Return the strongest truth that the run has: what a twin gives back of the calibration half, else what was inserted."""
    if "extracted" not in known_labels(table):
        return "inserted"
    # A twin that gives nothing back tells no score from another.
    given_back = sides(table, canaries, label="extracted", role="calibration").positive.any()
    return "extracted" if given_back else "inserted"


def quality(
    run: Run,
    role: str = "calibration",
    *,
    label: str | None = None,
    part: str = "all",
    table: SampleTable | None = None,
) -> dict[str, Quality]:
    """Return how well each score finds what is memorized; see `labels.sides`.

    Args:
        run: a scored run.
        role: half of the canaries.
        label: key in `LABELS`; None takes `default_label`.
        part: of the positives; see `labels.slice_names`.
        table: of the run, where the caller has it.

    Raises:
        UnknownNameError: the label is unknown.
        RunNotSealed: its truth needs a twin that was not trained.
    """
    table = table or load_table(run)
    canaries = run.canaries()
    label = label or default_label(table, canaries)
    if label not in LABELS:
        raise UnknownNameError.of("label", label, LABELS)
    if label not in known_labels(table):
        raise RunNotSealed(f"label {label!r} needs a twin model; run: python -m carto_core probe {run.run_id} twin")
    return qualities(table, canaries, label=label, role=role, part=part)


def search(run: Run, phrase: str) -> Int32:
    """Return the ids of the samples whose text holds a phrase, whatever its case; never a pattern.

    Raises:
        SelectionError: the phrase holds half a surrogate pair, which no text does.
    """
    if not is_unicode(phrase):
        raise SelectionError(f"the text {phrase[:40]!a} holds half of a character; search for whole ones")
    found = run.query("select sample_id from samples where contains(lower(text), lower(?)) order by 1", [phrase])
    return found["sample_id"].to_numpy(np.int32)


def select(run: Run, rule: Rule, *, table: SampleTable | None = None) -> Selection:
    """Return the samples of a run that a rule names.

    Raises:
        SelectionError: see `selection.resolve`.
    """
    return resolve(rule, table or load_table(run), search=lambda phrase: search(run, phrase))


def quadrant_rule(name: str, cuts: Cuts) -> Rule:
    """Return the rule of one quadrant; it keeps axes and cuts, so that later cuts do not change what it names."""
    return {"type": "quadrant", "name": name, "x": cuts.x, "y": cuts.y, "tau_x": cuts.tau_x, "tau_y": cuts.tau_y}


def read_keys(path: str | Path) -> Rule:
    """Return the rule of a key file, one key a line; empty lines are passed over.

    Raises:
        SelectionError: the file cannot be read or holds no key.
    """
    try:
        keys = [line for line in Path(path).read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise SelectionError(f"cannot read the key file {path}: {error}") from None
    if not keys:
        raise SelectionError(f"{path} holds no key; write one key a line")
    return {"type": "keys", "keys": keys}


def write_selection(run: Run, selection: Selection, out: str | Path, *, table: SampleTable | None = None) -> Path:
    """Write a selection file: the rule, and the keys that it named."""
    write_json(Path(out), selection_content(selection, table or load_table(run)))
    return Path(out)


def selection_content(selection: Selection, table: SampleTable) -> dict[str, Any]:
    """Return what a selection file holds."""
    return {
        "version": 1,
        "run_id": table.run_id,
        "corpus_sha256": table.corpus_sha256,
        "rule": selection.rule,
        "num_samples": len(selection.sample_ids),
        "notes": list(selection.notes),
        "keys": table.key[selection.sample_ids].tolist(),
    }


def read_selection(run: Run, path: str | Path, *, table: SampleTable | None = None) -> Selection:
    """Return the selection of a file. The keys decide, so that a later rescore cannot change what was chosen.

    Raises:
        SelectionError: the file is damaged, belongs to another corpus, or names keys that the run lacks.
    """
    content = read_selection_file(path)
    table = table or load_table(run)
    if content["corpus_sha256"] != table.corpus_sha256:
        raise SelectionError(
            f"{path} was made on another corpus (run {content.get('run_id')}), not on that of {run.run_id}"
        )
    chosen = select(run, {"type": "keys", "keys": content["keys"]}, table=table)
    return Selection(canonical(content["rule"]), chosen.sample_ids, tuple(content.get("notes", ())))


def read_selection_file(path: str | Path) -> dict[str, Any]:
    """Return the content of a selection file, its keys and its rule not yet looked up in any run.

    Raises:
        SelectionError: the file is damaged, or of another version.
    """
    content = read_json(Path(path), SELECTION, error=SelectionError, cure=SELECTION_CURE)
    if len(set(content["keys"])) < len(content["keys"]) or content["num_samples"] != len(content["keys"]):
        raise SelectionError(f"{path}: its keys are not num_samples different ones; {SELECTION_CURE}")
    try:
        check_form(content["rule"])
    except SelectionError as error:
        raise SelectionError(f"{path}: {error}; {SELECTION_CURE}") from None
    return content


def plan_action(
    run: Run, selection: Selection, *, action: str, factor: float | None = None, table: SampleTable | None = None
) -> Plan:
    """Return the plan that does one thing to a selection; see `interventions.make_plan` and `_on_top`."""
    return _on_top(run, interventions.make_plan(selection, table or load_table(run), action=action, factor=factor))


def plan_policy(
    run: Run, *, alpha: float, gamma: float, cuts: Cuts | None = None, table: SampleTable | None = None
) -> Plan:
    """Return the four-quadrant plan at the given or the saved cuts, with warnings from the run's audits; see `_on_top`."""
    table = table or load_table(run)
    policy = interventions.quadrant_policy(
        table, cuts or Cuts.of(table), alpha=alpha, gamma=gamma, extractable=extracted_samples(run)
    )
    return _on_top(run, policy)


def plan_deduplicate(run: Run, *, table: SampleTable | None = None) -> Plan:
    """Return the plan that leaves one copy of each text; see `interventions.deduplicate` and `_on_top`.

    Raises:
        PlanError: no text stands there more than once.
    """
    table = table or load_table(run)
    repeats, _ = run.drawn()
    plan = interventions.deduplicate(table, drawn=repeats > 0)
    if not (plan.affected & (repeats > 0)).any():
        raise PlanError(
            f"run {run.run_id} was trained on no text twice, so there is no copy to prune; texts that only resemble each other "
            "are told by `probe near_duplicates`"
        )
    return _on_top(run, plan)


def _on_top(run: Run, plan: Plan) -> Plan:
    """Return a plan together with the one that the run itself was trained under, so that a second cut keeps the first.

    Repeats and weights are multiplied.

    Raises:
        PlanError: the two together leave nothing to train on.
    """
    repeats, weights = run.drawn()
    before = (repeats != 1) | (weights != 1)
    if not before.any():
        return plan
    if not (plan.repeats * repeats).any():
        raise PlanError(f"with what was pruned before run {run.run_id}, the plan leaves nothing to train on")
    earlier = f"plan of run {run.run_id}"
    reason = [
        "; ".join(part for part in (earlier if was else "", now) if part)
        for was, now in zip(before, plan.reason, strict=True)
    ]
    note = f"On top of the plan that run {run.run_id} was trained under, which changed {int(before.sum()):,} samples."
    return dataclasses.replace(
        plan,
        repeats=plan.repeats * repeats,
        weights=plan.weights * weights,
        reason=reason,
        notes=(*plan.notes, note),
    )


def save_plan(run: Run, plan: Plan, *, out: str | Path | None = None, table: SampleTable | None = None) -> Path:
    """Write a plan directory and return it; by default `RUN/plans/HASH`. It is no draft, even if a page made it first."""
    return lineage.settled(write_plan(run, plan, table or load_table(run), out=out))


def export(
    run: Run,
    plan_dir: str | Path,
    *,
    file_format: str,
    out: str | Path,
    without_canaries: bool = False,
    corpus: bool = False,
) -> Path:
    """Write a plan in one of the formats with its manifest, or with `corpus` the cleaned corpus.

    Raises:
        PlanError: the plan cannot be read, or see `export_plan`.
    """
    table = load_table(run)
    plan, facts = read_plan(plan_dir, table)
    if corpus:
        return export_corpus(run, plan, table, out=out)
    return export_plan(Outgoing(run, plan, table, without_canaries), facts, file_format=file_format, out=out)


def read_audit(run: Run, name: str) -> dict[str, Any] | None:
    """Return `audits/NAME.json`, or None where that audit has not been run.

    Raises:
        RunCorrupt: the file is damaged, or speaks of samples or canaries that the run does not have.
    """
    path = run.files.audits / f"{name}.json"
    if not path.is_file():
        return None
    cure = f"run: python -m carto_core audit {run.run_id} {name}"
    audit = read_json(path, AUDIT_SHAPES[name], cure=cure)
    ids = {i for row in audit["per_item"] for i in (*row.get("sample_ids", ()), row.get("sample_id", 0))}
    canaries = {row["canary_id"] for row in audit["per_item"] if "canary_id" in row}
    if max(ids, default=0) >= run.num_samples or not canaries <= set(run.canaries()["canary_id"]):
        raise RunCorrupt(f"{path} speaks of samples or canaries that run {run.run_id} does not have; {cure}")
    return audit


def extracted_samples(run: Run) -> set[int]:
    """Return the unplanted samples that the natural audit found extractable; empty where it has not been run."""
    audit = read_audit(run, "natural")
    return set() if audit is None else {i for row in audit["per_item"] if row["extracted"] for i in row["sample_ids"]}


def measurement_dir(run: Run, plan_dir: str | Path) -> Path:
    """Return where the measurement of a plan is kept: `RUN/previews/HASH`."""
    return run.files.previews / read_plan_json(Path(plan_dir))["plan_sha256"][:16]


def measurement_arms(
    run: Run,
    plan_dir: str | Path,
    *,
    seeds: int,
    equal: Equal = "steps",
    oracle: bool = False,
    membership: bool = False,
) -> list[Arm]:
    """Return the arms that measuring a plan would need; for what can be asked of them see `measure_plans`.

    Raises:
        PlanError: the plan cannot be read, or the run was itself trained under a plan.
        RunError: another program trained the model.
    """
    run.require_model()
    if (parent := run.manifest.get("parent_run")) is not None:
        raise PlanError(
            f"run {run.run_id} was trained under a plan, and a measurement compares with the whole corpus; measure a "
            f"plan of {parent}, or train this one in full: python -m carto_core retrain {run.run_id} {plan_dir} --out DIR"
        )
    table = load_table(run)
    plan, _ = read_plan(plan_dir, table)
    bound = None
    if oracle:
        chosen = interventions.oracle(table, run.canaries(), budget=int(plan.affected.sum()))
        if not len(chosen.sample_ids):
            raise PlanError(
                f"no planted canary fits into {int(plan.affected.sum())} rows, so there is no oracle to train"
            )
        bound = interventions.make_plan(chosen, table, action="prune")
    audits = WITH_MEMBERSHIP if membership else PREVIEW_AUDITS
    return arms_of(run, plan, table, seeds=seeds, equal=equal, audits=audits, oracle=bound)


def _losses_to_score(run: Run) -> tuple[SnapshotKind, Float32]:
    kinds: tuple[SnapshotKind, SnapshotKind] = ("after", "during")
    for kind in kinds:
        losses = run.trajectories(kind)
        if len(losses):
            _require_finite(run, losses)
            return kind, losses
    raise RunCorrupt(f"run {run.run_id} holds no snapshot, so there is nothing to score; train it again")


def _require_finite(run: Run, losses: Float32) -> None:
    """Raise RunCorrupt where a loss is infinite, so that no score is made of it; NaN is a sample not seen."""
    bad = np.argwhere(np.isinf(losses))
    if len(bad):
        keys = run.samples("sample_id, key")["key"]
        names = ", ".join(repr(keys[i]) for i in dict.fromkeys(bad[:, 1].tolist()[:5]))
        raise RunCorrupt(
            f"run {run.run_id} holds infinite losses, from snapshot {bad[0, 0]} on, of samples {names}; "
            "train it again with a smaller --learning-rate"
        )


def _score_meta(config: ScoreConfig, table: ScoreTable, *, kind: SnapshotKind, cuts: Cuts) -> dict[str, str | None]:
    """Return the rows of `meta`; a float is printed so that it parses back exactly."""
    return {
        "score_kind": kind,
        "burn_in": str(table.burn_in),
        "eps_mode": config.eps_mode,
        "eps_quantile": None if config.eps_mode == "absolute" else repr(float(config.eps)),
        "eps": None if table.eps is None else repr(table.eps),
        "hysteresis": repr(config.hysteresis),
        "quadrant_x": cuts.x,
        "quadrant_y": cuts.y,
        "tau_d": repr(cuts.tau_x),
        "tau_m": repr(cuts.tau_y),
    }


def _scores_table(scores: dict[str, Float32], labels: np.ndarray) -> pa.Table:
    columns = {"sample_id": pa.array(np.arange(len(labels), dtype=np.int32))}
    columns |= {name: pa.array(values, pa.float32(), from_pandas=True) for name, values in scores.items()}
    return pa.table(columns | {"quadrant": pa.array(labels, pa.string())})
