"""What comes in by every door, made up and mutated: only a `CartoError` or a right result may come out, and soon.

`tests/bad_input/test_fuzz.py` tries some fixed examples of each, `python -m benchmarks.fuzz` random ones for minutes.
"""

import base64
import json
import time
import zlib
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from carto_core.audits.shapes import SHAPES
from carto_core.errors import CartoError
from carto_core.export import read_plan
from carto_core.preview.effects import effects_of, read_measurement, reading
from carto_core.preview.prepared import read_prepared
from carto_core.report.audited import _FINDINGS
from carto_core.rules import canonical, check_form, describe
from carto_core.scores import SCORES
from carto_core.selection import inside, read_polygon_file, resolve, simplify_polygon
from carto_core.store.rundir import last_progress, read_manifest, run_status
from carto_core.store.writer import read_part_manifest
from carto_core.types import ROLES
from carto_core.ui import state
from carto_core.workflows import light, saved
from tests.bad_input.cases import carto
from tests.bad_input.corpora import GOOD, lines, parquet, read

SLOW_S = 10.0  # of a core; what is unbounded takes longer than this
SPECIAL = st.sampled_from(
    [0, -1, 2**63, -(2**70), 10**400, 1e308, float("nan"), float("inf"), "", "\ud800", "a\0", None]
)
VALUES = st.one_of(SPECIAL, st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
JSON = st.recursive(
    VALUES,
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=6), part, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from([*list(SCORES)[:4], "luck", ""])
NUMBERS = st.one_of(st.floats(0, 6), st.integers(-3, 9), SPECIAL)


@st.composite
def mutated_bytes(draw, valid):
    """Valid bytes with some cut out, put in, doubled or changed; or bytes of no kind."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 30))
        data[at : at + length] = draw(st.one_of(st.binary(max_size=12), st.just(bytes(data[at : at + 60]))))
    return bytes(data)


@st.composite
def mutated_json(draw, valid):
    """A valid JSON value with some of its parts replaced by others, taken out, or doubled."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 3))):
        holder, name = draw(st.sampled_from(_places(value))) if _places(value) else (None, None)
        if holder is None:
            return draw(JSON)
        if isinstance(holder, dict) and draw(st.booleans()):
            holder.pop(name, None)
        else:
            holder[name] = draw(JSON)
    return value


def _places(value):
    """Every (holder, name or index) below a value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(value, name) for name, _ in parts]
    for _, part in list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        found += _places(part)
    return found


@st.composite
def rules(draw, depth=0):
    """Rules, right and wrong, up to some levels deep."""
    kind = draw(st.sampled_from(["polygon", "quadrant", "top", "keys", "range", "filter", "many", "one", "none"]))
    if kind == "none" or depth > 4:
        return draw(JSON)
    if kind == "many":
        given = {
            "type": draw(st.sampled_from(["all", "any", "combined"])),
            "rules": draw(st.lists(rules(depth + 1), max_size=3)),
        }
        return given | (
            {"op": draw(st.sampled_from(["add", "subtract", "intersect", "divide"]))}
            if given["type"] == "combined"
            else {}
        )
    if kind == "one":
        return {"type": "duplicates_of", "rule": draw(rules(depth + 1))}
    fields = {
        "polygon": {
            "x": NAMES,
            "y": NAMES,
            "polygons": st.lists(st.lists(st.lists(NUMBERS, max_size=3), max_size=6), max_size=2),
        },
        "quadrant": {
            "name": st.sampled_from(["stable-easy", "none"]),
            "x": NAMES,
            "y": NAMES,
            "tau_x": NUMBERS,
            "tau_y": NUMBERS,
        },
        "top": {"by": NAMES, "q": NUMBERS},
        "keys": {"keys": st.one_of(JSON, st.just(["tiny/0001", "=1+1"]))},
        "range": {"score": NAMES, "low": NUMBERS, "high": NUMBERS},
        "filter": {
            "source": st.one_of(JSON, st.just(["quotes"])),
            "min_tokens": NUMBERS,
            "text": VALUES,
            "duplicates": VALUES,
        },
    }[kind]
    return {"type": kind} | {name: draw(value) for name, value in fields.items()}


# --- the doors -------------------------------------------------------------------------------------------------------


def corpora(place):
    """Files of a corpus, by the readers."""
    valid = {
        "jsonl": lines(*GOOD[:5], {"text": "ä 🎉", "key": "k", "m": [1, {"a": None}]}).encode(),
        "csv": b'text,key,m\r\n"a, ""b""",1,x\r\nc,2,\r\n',
        "parquet": parquet({"text": ["a", "b"] * 9, "key": [f"k{i}" for i in range(18)], "m": [[1, 2], None] * 9}),
        "txt": b"one\ntwo\n\nthree\r\n",
    }
    given = st.sampled_from(sorted(valid)).flatmap(
        lambda suffix: st.tuples(st.just(suffix), mutated_bytes(st.just(valid[suffix])) | st.binary(max_size=200))
    )

    def check(example):
        suffix, content = example
        rows = read(place.write(f"fuzz.{suffix}", content))
        assert rows
        assert len({row.key for row in rows}) == len(rows)
        for row in rows:
            json.dumps([row.key, row.text, row.source, row.meta], ensure_ascii=False, allow_nan=False).encode()
            assert row.text.strip()

    return given, check


def contract_files(place):
    """JSON files of the contract, each by whoever reads it."""
    run = place.good
    table = light.load_table(run)
    selection, plan_dir = place.root / "s.json", place.plan
    polygons = {"version": 1, "x": "difficulty", "y": "final_loss", "polygons": [[[0, 0], [9, 0], [9, 9]]]}
    arms = [
        {"arm": arm, "seed": s, "steps": 1, "tokens": 1, "ppl_nats": 2.0 + s}
        for arm in ("plan", "control")
        for s in (0, 1)
    ]
    facts = json.loads((plan_dir / "plan.json").read_text())
    measured = {
        "plan_sha256": facts["plan_sha256"],
        "equal": "steps",
        "seeds": [0, 1],
        "arms": arms,
        "effects": effects_of(arms),
    }
    previews = run.files.previews / plan_dir.name
    snapshot = {"snapshot": 0, "step": 1, "epoch": 1.0, "kind": "after", "wall_s": 0.0}
    files = {
        run.files.manifest: (run.manifest, lambda: (read_manifest(run.files), run_status(run.files))),
        selection: (json.loads(selection.read_text()), lambda: light.read_selection(run, selection, table=table)),
        place.root / "p.json": (polygons, lambda: resolve(read_polygon_file(place.root / "p.json"), table)),
        plan_dir / "plan.json": (facts, lambda: describe(read_plan(plan_dir, table)[1]["rule"])),
        previews / "measure.json": (measured, lambda: [reading(e) for e in read_measurement(previews)["effects"]]),
        run.files.prepared / "prepared.json": (
            json.loads((run.files.prepared / "prepared.json").read_text()),
            lambda: read_prepared(run),
        ),
        run.files.parts / "snapshots.json": ([snapshot], lambda: read_part_manifest(run.files)),
        run.files.progress: ({"time": "t", "done": 1, "total": 2}, lambda: last_progress(run.files.progress)),
        run.files.selections / "named.json": (json.loads(selection.read_text()), lambda: saved.list_saved(run)),
    }
    for name in SHAPES:
        files[run.files.audits / f"{name}.json"] = (AUDITS[name], lambda name=name: _read_audit(run, name))
    whole = {path: path.read_bytes() if path.is_file() else None for path in files}

    def one(path):
        content = mutated_json(files[path][0]).map(lambda value: json.dumps(value).encode())
        valid = json.dumps(files[path][0]).encode()
        return st.tuples(st.just(path), content | mutated_bytes(st.just(valid)))

    def check(example):
        path, content = example
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            files[path][1]()
        finally:
            path.write_bytes(whole[path]) if whole[path] is not None else path.unlink()

    return st.sampled_from(list(files)).flatmap(one), check


def _read_audit(run, name):
    audit = light.read_audit(run, name)
    for sentence in _FINDINGS[name](audit["summary"], ROLES):
        assert "nan" not in sentence.lower().split()


def all_rules(place):
    """Rules of selections, resolved, written in their one form, and told in words."""
    table = light.load_table(place.good)

    def check(rule):
        assert len(describe(rule)) <= 240
        found = resolve(rule, table, search=lambda phrase: light.search(place.good, phrase))
        check_form(found.rule)
        assert np.array_equal(
            resolve(canonical(found.rule), table, search=lambda p: light.search(place.good, p)).sample_ids,
            found.sample_ids,
        )

    return rules(), check


def links(place):
    """What an address may hold as a view."""
    view = {
        "x": "difficulty",
        "cut_x": 75.0,
        "polygons": [[[0, 0], [1, 0], [1, 1]]],
        "region": {"type": "keys", "keys": ["a"]},
    }
    view |= {"text": "a", "source": ["s"], "max_tokens": 5, "zoom": [0, 1, 0, 1], "restrict": True}
    content = (mutated_json(view) | JSON).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=99)
    squeezed = st.one_of(content.map(zlib.compress), mutated_bytes(content.map(zlib.compress)))
    packed = squeezed.map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="))

    def check(link):
        try:
            found = state.unpacked(link)
        except (ValueError, CartoError):
            return
        again = state._packed(found)
        assert state.unpacked(again) == found if again else found == state.View()
        assert len(describe(found.selection_rule())) <= 240

    return packed | st.text(max_size=60), check


def polygons(place):
    """Polygons of every form against an exact count, even-odd, the boundary outside."""
    grid = st.integers(0, 6).map(float) | st.floats(0, 6, width=32)
    corners = st.lists(st.tuples(grid, grid), min_size=3, max_size=12)
    points = st.lists(st.tuples(grid, grid), min_size=1, max_size=12)

    def check(example):
        polygon, where = example
        kept = simplify_polygon(polygon)
        assert simplify_polygon(kept) == kept
        x, y = (np.array([point[i] for point in where], np.float32) for i in (0, 1))
        found = inside(x, y, [kept]).tolist()
        assert found == [_is_inside(Fraction(float(a)), Fraction(float(b)), kept) for a, b in zip(x, y, strict=True)]

    return st.tuples(corners, points), check


def _is_inside(x, y, corners):
    """Whether a point is strictly inside, by exact arithmetic: an odd number of edges to its right, and on none."""
    exact = [(Fraction(a), Fraction(b)) for a, b in corners]
    odd = False
    for (a, b), (c, d) in zip(exact, [*exact[1:], exact[0]], strict=True):
        side = (c - a) * (y - b) - (d - b) * (x - a)
        if side == 0 and min(a, c) <= x <= max(a, c) and min(b, d) <= y <= max(b, d):
            return False
        if (b > y) != (d > y) and (side > 0) == (d > b):
            odd = not odd
    return odd


def command_lines(place):
    """Arguments of the verbs that need no model."""
    word = st.one_of(
        st.sampled_from(
            ["0", "-1", "0.5", "nan", "inf", "1e400", "9" * 40, "", "good", "difficulty", "--json", "..", "prune"]
        ),
        st.text(st.characters(blacklist_categories=["Cs"]), max_size=8),
    )
    options = {
        "select": ["--quadrant", "--top", "--by", "--keys", "--polygon", "--combine", "--with"],
        "plan": ["--action", "--factor", "--policy", "--alpha", "--gamma"],
        "compare": ["--x", "--y", "--cuts"],
        "export": ["--format", "--without-canaries", "--corpus"],
        "runs": [],
        "train": [
            "--epochs",
            "--snapshots",
            "--seed",
            "--batch-size",
            "--validation",
            "--hidden",
            "--corpus",
            "--canaries",
        ],
    }
    needed = {
        "select": ["good"],
        "plan": ["good", place.root / "s.json"],
        "compare": ["good", "good"],
        "export": ["good", place.plan],
    }
    outs = {"select": "fuzz-s.json", "plan": "fuzz-plan", "export": "fuzz-list", "train": "fuzz-run/none/x"}

    def one(verb):
        pairs = st.lists(st.tuples(st.sampled_from(options[verb] or ["--json"]), word), max_size=4)
        return st.tuples(st.just(verb), pairs, st.lists(word, max_size=1))

    def check(example):
        verb, pairs, more = example
        given = [verb, *needed.get(verb, []), *more, *(part for pair in pairs for part in pair)]
        out = ["--out", place.root / outs[verb]] if verb in outs else []
        if verb == "train":
            given += ["--corpus", place.root / "nowhere.txt"]  # all of it is looked at before a corpus is read
        code, printed, err = carto(place, *given, *out)
        assert code in (0, 2), f"{given}: {code} {err}"
        if code == 2:
            assert err.startswith("error: "), err
            assert len(err.splitlines()) == 1, err
        assert "Traceback" not in printed + err

    return st.sampled_from(sorted(options)).flatmap(one), check


FUZZERS = {
    "corpora": corpora,
    "contract files": contract_files,
    "rules": all_rules,
    "links": links,
    "polygons": polygons,
    "command lines": command_lines,
}


def tried(check):
    """Return the property of one example: a `CartoError` or a right result, in bounded time."""

    def property_of(example):
        began, said = time.process_time(), "nothing to say"
        try:
            check(example)
        except CartoError as error:
            said = str(error)
        assert said.strip(), "an error without a sentence"
        took = time.process_time() - began
        assert took < SLOW_S, f"{took:.0f} s of a core for one example"

    return property_of


SHARE = {"k": 1, "n": 2, "rate": 0.5, "low": 0.1, "high": 0.9}
SPREAD = {"n": 2, "mean": 1.0, "median": 1.0, "low": 0.5, "high": 2.0}
FIGURES = {"value": 0.5, "low": 0.4, "high": 0.6, "note": None}
CANARY = {"canary_id": 1, "kind": "words", "role": "report", "repeats": 1, "inserted": True}
RECITED = SHARE | {"discoverable": SHARE}


def _halves(part):
    return {
        role: {"inserted": part | {"by_repeats": {"1": part}, "by_kind": {"words": part}}, "control": part}
        for role in ROLES
    }


def _audit(summary, *rows):
    return {"name": "n", "definition": "d", "summary": summary, "per_item": list(rows)}


AUDITS = {
    "perplexity": _audit(
        {
            "nats_per_token": 2.0,
            "perplexity": 7.0,
            "num_tokens": 9,
            "num_samples": 2,
            "intervals": {"perplexity": FIGURES},
        }
    ),
    "extraction": _audit(_halves(SHARE), CANARY | {"extracted": True, "optimal": None, "samples_needed": 3.0}),
    "exposure": _audit(_halves(SPREAD) | {"num_references": 1000}, CANARY | {"exposure": 1.5, "rank_exact": None}),
    "natural": _audit(
        SHARE, {"group_size": 2, "extracted": True, "sample_ids": [1], "prefix": "a", "expected": "b", "decoded": "c"}
    ),
    "verbatim": _audit(
        RECITED | {"longest_tokens": {"max": 3}, "by_group_size": {"1": RECITED}, "by_prefix": {"8": SHARE}},
        {"sample_id": 1, "group_size": 1, "extracted": False, "longest_tokens": 3, "longest_chars": 9, "log_p": -2.0}
        | {"samples_needed": None, "k_extractable": None},
    ),
    "membership": _audit(
        {"num_members": 2, "num_nonmembers": 2}
        | {
            "attacks": {
                "loss": {"status": "run", "auc": FIGURES, "flag": None, "note": None}
                | dict.fromkeys(("tpr_at_fpr_0.01", "tpr_at_fpr_0.001"), FIGURES)
            }
        }
    ),
    "tokens": _audit({"num_samples": 2, "num_tokens": 9}),
}
