"""The report: one file without anything from outside, its numbers, and what it must not say."""

import dataclasses
import json
import math
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import click
import numpy as np
import pytest

from carto_core import cli
from carto_core.audits import AUDITS
from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig
from carto_core.errors import ConfigError, PlanError, RunCorrupt
from carto_core.interventions import make_plan
from carto_core.preview.effects import effects_of
from carto_core.quadrants import Cuts
from carto_core.report import sections, words
from carto_core.report.commands import commands, plan_commands, train_command
from carto_core.report.document import report_html
from carto_core.report.drawings import map_svg, rows_svg, ticks
from carto_core.report.measured import MEASURES, effect_of, rows_of, verdict
from carto_core.selection import RULES
from carto_core.store.rundir import update_manifest, write_json
from carto_core.types import Selection
from carto_core.workflows import light
from carto_core.workflows.reporting import gather, write_report
from tests import tiny
from tests.test_cli import carto
from tests.tiny import NASTY, make_run

ALERT = "<script>alert(1)</script>"
FORBIDDEN_TAGS = {"script", "iframe", "object", "embed", "link", "form", "base", "audio", "video", "foreignobject"}


class Page(HTMLParser):
    """Every tag with its attributes, and the text between tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.said, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass
        if tag in ("td", "th"):
            self.said.append(" ")

    def handle_data(self, data):
        if "style" not in self.open:
            self.said.append(data)

    @property
    def words(self):
        """What a reader sees, on one line, hard spaces and minus signs as typed."""
        return re.sub(r"\s+", " ", "".join(self.said)).replace("−", "-")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", probes=True)


def saved_plan(run, rule, *, action="prune", ids=None, notes=(), **factor):
    table = light.load_table(run)
    chosen = light.select(run, rule, table=table) if ids is None else Selection(rule, np.array(ids, np.int32), notes)
    return light.save_plan(run, make_plan(chosen, table, action=action, **factor), table=table)


def hotspots(run):
    return light.quadrant_rule("hotspot-memorized", Cuts.of(light.load_table(run)))


def keys_of(run, ids):
    return {"type": "keys", "keys": light.load_table(run).key[ids].tolist()}


def arm(name, seed, found, *, ppl_nats=2.0, n=8):
    return {
        "arm": name,
        "seed": seed,
        "steps": 10,
        "tokens": 100,
        "extraction": {"calibration": {"k": found + 1, "n": n}, "report": {"k": found, "n": n}},
        "natural_extraction": {"k": 1, "n": 4},
        "exposure": {"calibration": 3.0, "report": 2.5 + seed},
        "ppl_nats": ppl_nats,
        "notes": {},
    }


# Plan minus control on the report half, by hand: -4/8, -3/8, -2/8; mean -37.5 points, t interval 4.3027 * 12.5 / sqrt(3).
ARMS = [
    *(arm("baseline", seed, 7, ppl_nats=2.0) for seed in range(3)),
    *(arm("plan", seed, 1 + seed, ppl_nats=2.1) for seed in range(3)),
    *(arm("control", seed, 5) for seed in range(3)),
    *(arm("dedup", seed, 4) for seed in range(3)),
]


def measure(run, plan_dir, arms=ARMS, *, seen=True):
    content = {"version": 1, "equal": "steps", "created": "2026-01-02T03:04:05+00:00"}
    content |= {"arms": arms, "effects": effects_of(arms)}
    write_json(light.measurement_dir(run, plan_dir) / "measure.json", content)
    update_manifest(run.files, report_seen=seen)
    return content


def page_of(run, plan_dir, **options):
    return Page(report_html(gather(run, plan_dir, **options)))


# One file


@pytest.mark.parametrize("is_measured", [False, True])
def test_the_report_is_one_file_without_scripts_and_without_a_network(run, is_measured):
    plan_dir = saved_plan(run, hotspots(run))
    if is_measured:
        measure(run, plan_dir)
    text = report_html(gather(run, plan_dir, with_texts=3))
    page = Page(text)

    assert not FORBIDDEN_TAGS & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href", "action", "srcset", "data", "poster"):
                assert value.startswith(("#", "data:image/")), (tag, name, value)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"<[^>]*>", "", text)), "an address outside of tags, as in CSS"
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [attributes for _, attributes in page.tags if "http-equiv" in attributes]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"} <= set(policy["content"].split("; "))


def test_links_inside_lead_to_sections(run):
    page = page_of(run, saved_plan(run, hotspots(run)))

    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) == len(sections.SECTIONS) - 1, "no texts were asked for"
    assert {link[1:] for link in links} <= anchors


def test_the_same_facts_give_the_same_file(run):
    facts = gather(run, saved_plan(run, hotspots(run)))

    assert report_html(facts) == report_html(facts)


def test_every_section_has_a_template():
    folder = Path(sections.__file__).parent / "templates" / "sections"

    assert {section.name for section in sections.SECTIONS} == {path.stem for path in folder.iterdir()}


# Nothing of a user's is markup


def test_nothing_of_a_users_can_become_markup(tmp_path):
    run = make_run(tmp_path / "<b>run & co")
    table = light.load_table(run)
    table = dataclasses.replace(
        table,
        key=np.array([ALERT, *table.key[1:]], object),
        source=np.array([ALERT + "source", *table.source[1:]], object),
    )
    rule = {"type": "filter", "text": ALERT + "phrase", "source": [ALERT + "wanted"]}
    plan = make_plan(
        Selection(rule, np.array([0], np.int32), (ALERT + "note", "Warning" + ALERT)), table, action="prune"
    )
    manifest = run.manifest
    manifest["config"]["corpus"]["path"] = "/somewhere/<i>my corpus.txt"
    update_manifest(run.files, config=manifest["config"], device=ALERT + "device")
    folder = light.save_plan(run, plan, table=table)

    text = report_html(gather(run, folder, with_texts=1, table=table))

    page = Page(text)
    assert not {"script", "b", "i"} & {tag for tag, _ in page.tags}
    for said in (
        ALERT,
        ALERT + "source",
        ALERT + "phrase",
        ALERT + "wanted",
        ALERT + "note",
        "Warning" + ALERT,
        ALERT + "device",
    ):
        assert said in page.words, said
    assert NASTY in page.words
    assert "<i>my corpus.txt" in page.words
    assert "/somewhere" not in text, "where a corpus lies on this machine is nobody else's business"


# Numbers


def test_the_numbers_are_those_of_the_measurement(run):
    plan_dir = saved_plan(run, hotspots(run))
    content = measure(run, plan_dir)

    page = page_of(run, plan_dir)

    half = 100 * 4.302653 * 0.125 / math.sqrt(3)
    assert (
        f"Plan minus random choice: -37.5 percentage points (95 % interval {-37.5 - half:.1f} to {-37.5 + half:.1f})"
        in page.words
    )
    assert "3 paired retrains (seeds 0, 1 and 2)" in page.words
    assert "25.0 % under the plan, 62.5 % under a random choice of the same size, and 87.5 % when nothing" in page.words
    assert f"differs by +{100 * (math.exp(0.1) - 1):.1f} %" in page.words
    effect = effect_of(content, "extraction.report", "plan", "control")
    assert effect["estimate"] == pytest.approx(-0.375)
    assert 100 * effect["low"] == pytest.approx(-37.5 - half, abs=1e-3)
    for seed in range(3):
        row = f"plan {seed} {1 + seed} of 8 {2 + seed} of 8 1 of 4 {2.5 + seed:.2f} 3.00 {math.exp(2.1):.2f}"
        assert row in page.words
    assert f"{math.exp(2.0):.2f}" in page.words
    ends = f"[{-37.5 - half:.1f}, {-37.5 + half:.1f}]"
    header = "Measure plan - control plan - baseline control - baseline dedup - baseline"
    row = f"Secrets given away, report half -37.5 points {ends} -62.5 points [{-62.5 - half:.1f}, {-62.5 + half:.1f}]"
    assert re.search(rf"{re.escape(header)}\s+{re.escape(row)}", page.words)
    assert verdict(gather(run, plan_dir)).kind == "lower"


def test_retrains_of_several_devices_are_told(run):
    plan_dir = saved_plan(run, hotspots(run))
    measure(run, plan_dir, [one | {"device": "cuda" if one["seed"] else "cpu"} for one in ARMS])

    assert "more than one device (4 on cpu, 8 on cuda)" in page_of(run, plan_dir).words


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ([], ""),
        ([0, 0, 0], ""),
        (
            [4, 5, 6],
            "The plan leaves no copy of 1 of the distinct texts, the control of 4 to 6; losing a text altogether costs more "
            "perplexity than losing a copy.",
        ),
    ],
)
def test_how_many_texts_the_control_loses_altogether_is_told(run, lost, said):
    plan_dir, arms = saved_plan(run, hotspots(run)), json.loads(json.dumps(ARMS))
    for made in (made for made in arms if made["arm"] == "control"):
        seed = made["seed"]
        made["notes"] = {"num_rows": 9, "tokens": 90, "plan_tokens": 90, "within_tolerance": True, "overlap": 1}
        made["notes"] |= {"texts_lost": lost[seed], "plan_texts_lost": int(any(lost))} if lost else {}
    measure(run, plan_dir, arms)

    words = page_of(run, plan_dir).words

    assert "by chance 1 of them are the plan's own." in words
    assert said in words
    assert ("leaves no copy" in words) == bool(said)


def test_exposures_that_both_end_where_counting_ends_are_no_difference_in_the_report(run):
    plan_dir = saved_plan(run, hotspots(run))
    measure(run, plan_dir, [made | {"exposure_most": 2.5} for made in ARMS])

    assert "cannot be told: both at the most that was counted" in page_of(run, plan_dir).words


@pytest.mark.parametrize(
    ("shift", "kind", "said"),
    [
        ((-4, -3, -2), "lower", "fewer planted secrets"),
        ((2, 2, 3), "higher", "Do not apply it for privacy"),
        ((-4, 1, 3), "open", "Not shown to do more than a random choice of the same size"),
        ((-4,), "open", "Too few retrains for a verdict"),
        ((-4, -4), "open", "Too few retrains for a verdict"),
    ],
)
def test_the_verdict_is_the_interval_in_words(run, shift, kind, said):
    plan_dir = saved_plan(run, hotspots(run))
    arms = [
        arm(name, s, 5 + (d if name == "plan" else 0))
        for s, d in enumerate(shift)
        for name in ("plan", "control", "baseline")
    ]
    measure(run, plan_dir, arms)

    answer = verdict(gather(run, plan_dir))

    assert answer.kind == kind
    assert said in answer.headline


def test_a_measurement_without_canaries_says_so(run):
    plan_dir = saved_plan(run, hotspots(run))
    nothing = {"k": 0, "n": 0}
    none = {
        "extraction": {"calibration": nothing, "report": nothing},
        "exposure": {"calibration": None, "report": None},
    }
    measure(run, plan_dir, [a | none for a in ARMS])

    page = page_of(run, plan_dir)

    assert "without planted secrets that could judge it" in page.words
    assert "Repeated texts of the corpus recited" in page.words
    assert "Exposure of secrets" not in page.words


def test_every_arm_has_its_mean_and_its_own_interval():
    rows = {row.label: row for row in rows_of({"arms": ARMS, "effects": []}, MEASURES[0])}

    assert list(rows) == ["plan", "control", "baseline", "dedup"]
    assert rows["plan"].values == [1 / 8, 2 / 8, 3 / 8]
    assert rows["plan"].mean == 0.25
    assert rows["plan"].high == pytest.approx(0.25 + 4.302653 * 0.125 / math.sqrt(3))
    assert rows["plan"].said == "25.0\u00a0%  [0.0, 56.1]", "the interval of a share ends at 0"
    assert rows["control"].said == "62.5\u00a0%", "which all seeds gave: no interval of no width"


def test_the_plan_is_counted_as_by_hand(run):
    plan_dir = saved_plan(run, keys_of(run, [0, 1, 2, 199]), action="upsample", factor=3)
    table = light.load_table(run)
    before = int(table.num_tokens.sum())
    after = before + 2 * int(table.num_tokens[[0, 1, 2, 199]].sum())

    said = page_of(run, plan_dir).words

    assert "a list of 4 samples, named one by one" in said
    assert "4 shown 3 times in every pass instead of once" in said
    assert f"{before:,} before, {after:,} after ({100 * (after / before - 1):+.1f} %)" in said
    assert "3 of 3 sources" in said, "samples 0, 1 and 2; the planted one is left out"
    assert "Warning: this up-samples 1 copies of 1 planted canaries" in said


def test_the_detector_is_said_as_the_product_says_it(run):
    said = page_of(run, saved_plan(run, hotspots(run))).words
    table = light.load_table(run)

    for label in ("inserted", "extracted", "exposed"):
        found = light.quality(run, label=label)[table.y]
        assert (
            f"AUC {found.auc.value:.2f} (95 % interval {found.auc.low:.2f} to {found.auc.high:.2f}): {found.note}."
            in said
        )
    assert "plain baseline" in said


# What is not there


def test_without_a_measurement_the_report_says_so_and_how_to_get_one(run):
    plan_dir = saved_plan(run, hotspots(run))

    page = page_of(run, plan_dir)

    assert "Not measured: nobody knows yet what this plan does to a model." in page.words
    command = f"python -m carto_core measure run data/runs/run/plans/{plan_dir.name} --seeds 3 --equal steps"
    assert page.words.count(command) == 2, "in the answer, and where the measurement would stand"
    assert "Plan minus random choice" not in page.words


def test_audits_that_were_not_run_are_named_with_their_command(run):
    extraction = {"n": 16, "k": 4, "rate": 0.25, "low": 0.1, "high": 0.5}
    none = {"n": 0, "k": 0, "rate": None, "low": None, "high": None}
    summary = {
        role: {"inserted": extraction | {"by_repeats": {}}, "control": none} for role in ("calibration", "report")
    }
    content = {"name": "extraction", "definition": "What was <b>asked</b>.", "summary": summary, "per_item": []}
    write_json(run.files.audits / "extraction.json", content)

    said = page_of(run, saved_plan(run, hotspots(run))).words

    assert "Calibration half: 4 of 16 (25.0 %; 95 % interval 10.0 % to 50.0 %) given away" in said
    assert "none to ask" in said
    assert "What was <b>asked</b>." in said
    for name in AUDITS:
        assert (f"Not run. python -m carto_core audit run {name}" in said) == (name != "extraction")


def test_the_report_half_is_hidden_until_it_was_seen(run):
    planted = np.flatnonzero(light.load_table(run).is_canary)
    plan_dir = saved_plan(run, keys_of(run, planted))
    measure(run, plan_dir, [arm | {"membership_tpr": 0.03} for arm in ARMS], seen=False)
    canaries = run.canaries()
    hidden = canaries.loc[canaries["role"] == "report", "secret"].str.strip().tolist()
    shown = canaries.loc[(canaries["role"] == "calibration") & canaries["inserted"], "secret"].str.strip().tolist()
    inserted = canaries[canaries["inserted"]]
    counted = {role: int((inserted["role"] == role).sum()) for role in ("calibration", "report")}

    before = page_of(run, plan_dir, with_texts=1000)

    assert "still hidden" in before.words
    assert not any(secret in before.words for secret in hidden)
    assert all(secret in before.words for secret in shown)
    assert (
        f"calibration half: the plan touches copies of {counted['calibration']} of {counted['calibration']}"
        in before.words
    )
    assert "report half: the plan touches" not in before.words
    for measure_ in MEASURES:
        assert (measure_.title in before.words) == (not measure_.metric.endswith(".report")), measure_.title
    assert "Inserted, report half" not in before.words

    update_manifest(run.files, report_seen=True)
    after = page_of(run, plan_dir, with_texts=1000)

    assert f"report half: the plan touches copies of {counted['report']} of {counted['report']}" in after.words
    assert "Inserted, report half" in after.words
    inserted_too = canaries.loc[(canaries["role"] == "report") & canaries["inserted"], "secret"].str.strip()
    assert all(secret in after.words for secret in inserted_too)


def test_no_text_and_no_key_appears_unless_asked_for(run):
    ids = list(range(40))
    plan_dir = saved_plan(run, keys_of(run, ids))
    table, texts = light.load_table(run), run.texts(ids)

    text = report_html(gather(run, plan_dir))

    assert not any(str(table.key[i]) in text for i in ids)
    assert not any(t[:30] in text for t in texts)
    phrase = saved_plan(run, {"type": "filter", "text": "number 5"})
    assert "number 5" not in page_of(run, phrase).words
    assert "containing a phrase that is not printed here" in page_of(run, phrase).words
    assert "containing “number 5”" in page_of(run, phrase, with_texts=1).words


def test_asked_for_texts_are_the_most_memorized_of_the_changed(run):
    plan_dir = saved_plan(run, {"type": "top", "by": "final_loss", "q": 0.3})
    table = light.load_table(run)
    canaries = run.canaries().set_index("canary_id")

    facts = gather(run, plan_dir, with_texts=5)

    allowed = [
        i
        for i in np.flatnonzero(facts.plan.affected)
        if not table.is_canary[i] or canaries.loc[int(table.canary_id[i]), "role"] == "calibration"
    ]
    expected = sorted(allowed, key=lambda i: table.scores["final_loss"][i])[:5]  # low is memorized; sorted is stable
    assert [shown.key for shown in facts.texts] == [table.key[i] for i in expected]
    assert [shown.text for shown in facts.texts] == run.texts(expected)


# The estimate


def test_what_was_estimated_is_told_with_its_support(run):
    plan_dir = saved_plan(run, hotspots(run))
    assert "python -m carto_core prepare run" in page_of(run, plan_dir).words
    tiny.prepare(run)

    said = page_of(run, plan_dir).words

    found = gather(run, plan_dir).estimate["metrics"]
    assert f"{100 * found['extraction.calibration']['value']:.1f}" in said
    assert "Extrapolated: no run supports this; no measured plans taught it." in said
    assert "extraction.report" not in found
    assert "Perplexity on held-out text, change" in said


# Rules in words


@pytest.mark.parametrize(
    ("rule", "said", "axis"),
    [
        ({"type": "top", "by": "min_k", "q": 0.05}, "the 5\u00a0% of samples that look most memorized by Min-K%, exact copies together", "min_k"),
        ({"type": "range", "score": "final_loss", "low": None, "high": 2.5}, "samples with Final loss at most 2.5 nats per token", "final_loss"),
        ({"type": "range", "score": "difficulty", "low": None, "high": None}, "samples with Difficulty of any value", "difficulty"),
        (
            {"type": "quadrant", "name": "hotspot-memorized", "x": "difficulty", "y": "final_loss", "tau_x": 3.0, "tau_y": 1.5},
            "the quadrant Hotspot-Memorized: Difficulty at most 3 nats per token, and Final loss below 1.5 nats per token",
            "final_loss",
        ),
        ({"type": "keys", "keys": ["a", "b", "a"]}, "a list of 2 samples, named one by one", None),
        (
            {"type": "all", "rules": [{"type": "filter", "source": ["mail"], "min_tokens": 5}, {"type": "top", "by": "rises", "q": 0.1}]},
            "(samples from mail and of at least 5 tokens) and "
            "(the 10\u00a0% of samples that look most memorized by Rises above own best, exact copies together)",
            "rises",
        ),
        ({"type": "duplicates_of", "rule": {"type": "keys", "keys": ["a"]}}, "a list of 1 samples, named one by one, with every exact copy", None),
        ({"type": "polygon", "x": "a", "y": "b", "polygons": [[], []]}, "samples inside any of the 2 outlines drawn on the map of a against b", "b"),
        (
            {"type": "combined", "op": "subtract", "rules": [{"type": "top", "by": "rises", "q": 0.1}, {"type": "keys", "keys": ["a"]}]},
            "(the 10\u00a0% of samples that look most memorized by Rises above own best, exact copies together) without (a list of 1 samples, named one by one)",
            "rises",
        ),
        ({"type": "filter"}, "all samples", None),
        ({"type": "deduplicate"}, "every exact copy of a text but the first", None),
        ({"type": "of the future"}, "a rule of type of the future", None),
    ],
)  # fmt: skip
def test_a_rule_is_said_in_words_and_names_the_score_that_chose(rule, said, axis):
    assert words.rule_words(rule) == said
    assert words.axis_of(rule) == axis


@pytest.mark.parametrize("kind", RULES)
def test_every_type_of_rule_has_words(kind):
    with suppress(KeyError):  # its fields are not there to be told
        assert "a rule of type" not in words.rule_words({"type": kind})


def test_the_policy_names_what_each_quadrant_gets(run):
    plan = light.plan_policy(run, alpha=0.4, gamma=3)
    said = page_of(run, light.save_plan(run, plan)).words

    assert "Ambiguous-Hard drawn 3 times, Hotspot-Memorized counted with weight 0.4, Noisy-Outlier removed" in said
    assert f"{int((plan.repeats == 3).sum())} shown 3 times in every pass instead of once" in said
    assert f"{int((plan.weights == np.float32(0.4)).sum())} counted with weight 0.4 instead of 1" in said


@pytest.mark.parametrize(
    ("text", "said"), [("-0.0", "0.0"), ("+0.00", "0.00"), ("-1.5", "−1.5"), ("+2", "+2"), ("1e-05", "1e−05")]
)
def test_a_minus_is_a_minus_and_zero_has_no_sign(text, said):
    assert words.minus(text) == said


# Drawings


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-3.2, 7.9) == [0, 5]
    assert ticks(61.1, 63.4) == [61.5, 62, 62.5, 63]


def test_the_map_draws_every_known_sample_once_and_what_was_drawn_by_hand():
    x, y = np.array([1.0, 2.0, 3.0, np.nan, 1.0]), np.array([1.0, 2.0, 3.0, 1.0, 1.0])
    actions = np.array(["keep", "prune", "upsample", "keep", "keep"], object)
    cuts = Cuts("difficulty", "consolidation", 1.5, 99.0)

    page = Page(map_svg(x, y, actions, cuts=cuts, outlines=[[[0, 0], [4, 0], [0, 4]]]))

    dots = {a["stroke"]: a["d"].count("M") for tag, a in page.tags if tag == "path" and a["class"] == "dots"}
    assert dots == {"#8A8F98": 1, "#D55E00": 1, "#009E73": 1}, (
        "the unknown one is left out, two on one spot are one dot"
    )
    assert [a["d"].count(",") for tag, a in page.tags if tag == "path" and a["class"] == "outline"] == [3]
    assert sum(a.get("class") == "cut" for _, a in page.tags) == 1, "a cut outside of what is shown is not drawn"
    for quadrant in ("Stable-Easy", "Ambiguous-Hard", "Hotspot-Memorized", "Noisy-Outlier"):
        assert quadrant in page.words
    assert "Difficulty (nats per token)" in page.words


def test_more_samples_than_dots_become_a_picture_in_the_file_itself(monkeypatch):
    monkeypatch.setattr("carto_core.report.drawings.MAX_DOTS", 10)
    rng = np.random.default_rng(0)
    actions = np.where(np.arange(500) < 5, "prune", "keep").astype(object)

    page = Page(map_svg(*rng.random((2, 500)), actions, cuts=Cuts("difficulty", "rises", 0.5, 0.5), outlines=[]))

    (picture,) = [attributes for tag, attributes in page.tags if tag == "image"]
    assert picture["href"].startswith("data:image/png;base64,")


def test_a_score_that_is_the_same_for_all_still_has_a_map():
    same = np.ones(3)

    page = Page(
        map_svg(same, same, np.full(3, "keep", object), cuts=Cuts("difficulty", "rises", 1.0, 1.0), outlines=[])
    )

    assert not any("nan" in str(value) or "inf" in str(value) for _, a in page.tags for value in a.values())


def test_an_interval_beyond_the_axis_is_cut_at_its_end():
    rows = rows_of({"arms": [a for a in ARMS if a["arm"] == "plan"], "effects": []}, MEASURES[0])

    page = Page(rows_svg(rows, ends=(0.0, 0.5), said=str, label="x"))

    (line,) = [a for _, a in page.tags if a.get("class") == "interval"]
    assert (line["x1"], line["x2"]) == ("8.0", "348.0")


# Commands


def options_of(line):
    """The parsed options of a command line of ours."""
    said = shlex.split(line)
    assert said[:3] == ["python", "-m", "carto_core"]
    command = cli.cli.commands[said[3]]
    with click.Context(command) as context:
        command.parse_args(context, said[4:])
        return context.params


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(corpus=CorpusConfig(path="demo"), canaries=CanaryConfig(), model=ModelConfig(), engine=EngineConfig()),
        RunConfig(
            corpus=CorpusConfig(path="my mail.csv", text_column="body text", key_column="id", max_chars=9000, piece_words=60, vocabulary="gpt2"),
            canaries=CanaryConfig(num_inserted=8, repeats=(1, 4), kinds=("words", "varied")),
            model=ModelConfig(task="gpt", hidden=12, heads=3, layers=2, dropout=0.1, context=99),
            engine=EngineConfig(epochs=1.5, snapshots=3, losses="both", seed=7, learning_rate=1e-4, weight_decay=0.01, precision="bf16"),
        ),
    ],
)  # fmt: skip
def test_the_train_command_makes_the_same_settings(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    options = options_of(train_command(config, "mine"))

    for name in ("out", "resume", "as_json"):
        options.pop(name)
    made = cli._run_config(**options)
    path = config.corpus.path if config.corpus.path == "demo" else str(tmp_path / config.corpus.path)
    assert made == dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, path=path))


def test_every_command_of_the_report_is_understood_and_makes_the_plan_again(run, tmp_path, monkeypatch):
    polygon = {"type": "polygon", "x": "difficulty", "y": "final_loss", "polygons": [[[0, 0], [9, 0], [9, 3], [0, 3]]]}
    monkeypatch.chdir(tmp_path)
    rules = (polygon, {"type": "top", "by": "rises", "q": 0.2}, hotspots(run))
    plan_dirs = [saved_plan(run, rule, action="reweight", factor=0.3) for rule in rules]
    for plan_dir in (*plan_dirs, light.save_plan(run, light.plan_deduplicate(run))):
        facts = gather(run, plan_dir)
        values = sections.provenance(facts)

        for line in values["commands"]:
            options_of(line)
        if values["polygon"]:
            (tmp_path / "polygon.json").write_text(values["polygon"])
        for line in plan_commands(facts):
            with pytest.raises(SystemExit) as done:
                cli.main([*shlex.split(line)[3:], "--runs-root", str(tmp_path), "--json"])
            assert done.value.code == 0
        assert plan_commands(facts)
        assert facts.plan_facts["plan_sha256"].startswith(plan_dir.name)
    assert len(list(run.files.plans.iterdir())) == 4, "the command lines made the very same plans"


def test_the_report_of_a_retrain_says_what_it_was_trained_under(run):
    of_plan = {"parent_run": "first", "plan_sha256": "ab" * 32, "train_seed": 3, "equal": "epochs"}
    facts = gather(run, saved_plan(run, hotspots(run)))

    line = commands(dataclasses.replace(facts, manifest=facts.manifest | of_plan))[0]

    said = options_of(line)
    assert line.startswith("python -m carto_core retrain first data/runs/first/plans/abababababababab ")
    assert (said["seed"], said["equal"], said["out"]) == (3, "epochs", Path("data/runs/run"))


def test_a_plan_that_no_command_line_says_is_called_so(run):
    other = {"type": "quadrant", "name": "stable-easy", "x": "difficulty", "y": "rises", "tau_x": 3.3, "tau_y": 0.1}
    plan_dir = saved_plan(run, other)

    assert plan_commands(gather(run, plan_dir)) == []
    assert "chosen in the dashboard in a way that no command line says" in page_of(run, plan_dir).words


# The verb


def test_the_command_writes_the_file_beside_the_plan_and_says_what_it_says(run, capsys):
    plan_dir = saved_plan(run, hotspots(run))
    measure(run, plan_dir)

    code, out, err = carto(capsys, "report", run.files.path, plan_dir, "--json")

    said = json.loads(out)
    assert (code, err) == (0, "")
    assert said["path"] == str(plan_dir / "report.html")
    assert Page((plan_dir / "report.html").read_text(encoding="utf-8")).words.count("Plan minus random choice") == 1
    facts = json.loads((plan_dir / "plan.json").read_text())
    assert said["plan_sha256"] == facts["plan_sha256"]
    assert (said["num_affected"], said["measured"], said["verdict"]) == (facts["num_affected"], True, "lower")
    assert (said["roles"], said["num_texts"]) == (["calibration", "report"], 0)


def test_the_file_goes_where_it_is_asked_to(run, capsys, tmp_path):
    out = tmp_path / "new folder" / "kept.html"

    code, text, _ = carto(capsys, "report", run.files.path, saved_plan(run, hotspots(run)), "--out", out)

    assert code == 0
    assert text.splitlines() == [str(out), "Not measured: nobody knows yet what this plan does to a model."]
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("where", ["file/report.html", "folder"])
def test_a_place_that_cannot_be_written_is_one_sentence(run, capsys, tmp_path, where):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()

    code, out, err = carto(
        capsys, "report", run.files.path, saved_plan(run, hotspots(run)), "--out", tmp_path / where, "--json"
    )

    assert code == 2
    assert json.loads(out)["error"] == "DiskError"
    assert f"cannot write {tmp_path / where}" in json.loads(out)["message"]
    assert "choose another place" in json.loads(out)["message"]
    assert len(err.strip().splitlines()) == 1


def test_mistakes_are_said(run, tmp_path):
    plan_dir = saved_plan(run, hotspots(run))

    with pytest.raises(ConfigError, match="--with-texts must be 0 or more, got -1"):
        write_report(run, plan_dir, with_texts=-1)
    with pytest.raises(PlanError, match=r"plan\.json cannot be read"):
        write_report(run, tmp_path / "nowhere")
    light.measurement_dir(run, plan_dir).mkdir(parents=True)
    for broken in ("{", "[]", '{"arms": [], "effects": []}'):
        (light.measurement_dir(run, plan_dir) / "measure.json").write_text(broken)
        with pytest.raises(RunCorrupt, match=r"measure\.json cannot be read: .*; .*measure the plan again"):
            write_report(run, plan_dir)
    (light.measurement_dir(run, plan_dir) / "measure.json").unlink()
    run.files.audits.mkdir(exist_ok=True)
    (run.files.audits / "natural.json").write_text("{")
    with pytest.raises(
        RunCorrupt, match=r"natural\.json cannot be read: .*; run: python -m carto_core audit run natural"
    ):
        write_report(run, plan_dir)
    assert not (plan_dir / "report.html").exists()


def test_a_rule_on_a_score_that_the_run_does_not_have_is_said(run):
    plan_dir = saved_plan(run, {"type": "range", "score": "vibes", "low": 0, "high": 1}, ids=[1])

    with pytest.raises(
        PlanError, match="names vibes, which run run was not scored with; run: python -m carto_core score run"
    ):
        gather(run, plan_dir)


def test_a_really_trained_and_audited_run_has_a_report(trained_run, tmp_path):
    chosen = light.select(trained_run, {"type": "top", "by": "final_loss", "q": 0.1})
    plan_dir = light.save_plan(
        trained_run, light.plan_action(trained_run, chosen, action="prune"), out=tmp_path / "plan"
    )

    said = write_report(trained_run, plan_dir, out=tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))

    assert said["measured"] is False
    assert "Not run." not in page.words, "all audits were run"
    for audit in AUDITS.values():
        assert audit.question in page.words
    assert trained_run.manifest["tokenizer"]["sha256"] in page.words


def test_writing_a_report_never_loads_torch():
    code = "import carto_core.workflows.reporting, sys; sys.exit(bool({'torch', 'streamlit'} & set(sys.modules)))"
    root = Path(__file__).parents[1]

    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, check=False).returncode == 0
