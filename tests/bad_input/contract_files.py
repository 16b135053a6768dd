"""Bad input through the files of the contract: selections, polygons, keys, plans, measurements, audits, probes."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.preview.effects import effects_of
from carto_core.store.rundir import write_json
from tests.bad_input.cases import FILES, Case
from tests.bad_input.corpora import MARKUP

SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1]]
SHARE = {"k": 1, "n": 2, "rate": 0.5, "low": 0.1, "high": 0.9}
EFFECT = {
    "metric": "ppl_nats",
    "arm": "plan",
    "against": "base",
    "method": "none",
    "estimate": 0.0,
    "low": -1,
    "high": 1,
}


def _polygon(name, content, says=(), right=None):
    """A polygon file; a list is its polygons, anything else the whole file."""
    axes = {"version": 1, "x": "difficulty", "y": "final_loss"}

    def make(place):
        whole = axes | {"polygons": content} if isinstance(content, list) else content
        return ["select", "good", "--polygon", place.write("p.json", whole), "--out", place.root / "x.json"]

    return Case(FILES, f"polygon file: {name}", make, says, right)


def _selection(name, change, says):
    def make(place):
        content = json.loads((place.root / "s.json").read_text())
        changed = change(content)
        return ["plan", "good", place.write("bad.json", changed), "--action", "prune"]

    return Case(FILES, f"selection file: {name}", make, says)


def _keys(name, content, says=(), right=None):
    def make(place):
        return ["select", "good", "--keys", place.write("keys.txt", content), "--out", place.root / "x.json"]

    return Case(FILES, f"key file: {name}", make, says, right)


def _plan(name, says, **changes):
    def make(place):
        place.change(place.plan / "plan.json", **changes)
        return ["export", "good", place.plan, "--format", "csv", "--out", place.root / "list.csv"]

    return Case(FILES, f"plan.json: {name}", make, says)


def _rows(name, change, says):
    def make(place):
        path = place.plan / "plan.parquet"
        change(path)
        return ["preview", "good", place.plan]

    return Case(FILES, f"plan.parquet: {name}", make, says)


def _put(column, values):
    def change(path):
        table = pq.read_table(path)
        place = table.column_names.index(column)
        pq.write_table(table.set_column(place, column, pa.array(values(table[column].to_pylist()))), path)

    return change


def _audit(name, audit, content, says):
    """An audit's file that a report reads."""

    def make(place):
        place.write(f"runs/good/audits/{audit}.json", content)
        return ["report", "good", place.plan, "--out", place.root / "r.html"]

    return Case(FILES, f"audit: {name}", make, says)


def _measure(name, says, **changes):
    def make(place):
        arm = {"arm": "plan", "seed": 0, "steps": 1, "tokens": 1, "ppl_nats": 2.0}
        facts = json.loads((place.plan / "plan.json").read_text())
        content = {"plan_sha256": facts["plan_sha256"], "equal": "steps", "seeds": [0], "arms": [arm]}
        content["effects"] = effects_of([arm])
        write_json(place.runs / "good" / "previews" / place.plan.name / "measure.json", content | changes)
        return ["report", "good", place.plan, "--out", place.root / "r.html"]

    return Case(FILES, f"measure.json: {name}", make, says)


def _other(name, file, content, verb, says):
    def make(place):
        place.write(f"runs/good/{file}", content)
        given = {"preview": ["preview", "good", place.plan], "score": ["score", "good"]}
        return given[verb]

    return Case(FILES, name, make, says)


def _natural(**changes):
    return {"definition": "d", "summary": SHARE | changes, "per_item": []}


def _perplexity(**changes):
    summary = {"nats_per_token": 2.0, "perplexity": 7.4, "num_tokens": 10, "num_samples": 2}
    return {"definition": "d", "summary": summary | changes, "per_item": []}


def _circle(vertices):
    return [[math.cos(i * math.tau / vertices) * 50, math.sin(i * math.tau / vertices) * 50] for i in range(vertices)]


def _deep(levels):
    rule = {"type": "keys", "keys": []}
    for _ in range(levels - 1):
        rule = {"type": "duplicates_of", "rule": rule}
    return rule


def _selects(number):
    return lambda place, result: result["num_samples"] == number


LARGE = [[-1e6, -1e6], [1e6, -1e6], [1e6, 1e6], [-1e6, 1e6]]
TWICE = [[-1e6, -1e6], [1e6, -1e6], [1e6, 1e6], [-1e6, 1e6]] * 2


CASES = [
    _polygon("two vertices", [[[0, 0], [1, 1]]], ("at least 3 vertices",)),
    _polygon(
        "a vertex that is NaN",
        '{"version": 1, "x": "difficulty", "y": "final_loss", "polygons": [[[NaN, 0]]]}',
        ("NaN",),
    ),
    _polygon(
        "a vertex beyond all numbers", '{"version": 1, "x": "a", "y": "b", "polygons": [[[1e999, 0]]]}', ("1e999",)
    ),
    _polygon("vertices of three numbers", [[[0, 0, 0], [1, 1, 1], [2, 2, 2]]], ("[x, y]",)),
    _polygon("words for numbers", [[["a", "b"]] * 3], ("finite number", "'a'")),
    _polygon("no polygon", [], ("polygons must be",)),
    _polygon("a polygon that is null", [None], ("polygons[0]", "list")),
    _polygon("100,001 vertices", [_circle(100_001)], ("100,000", "vertices")),
    _polygon(
        "an axis that is none", {"version": 1, "x": MARKUP, "y": "final_loss", "polygons": [SQUARE]}, ("<script>",)
    ),
    _polygon("a version to come", {"version": 2, "x": "a", "y": "b", "polygons": [SQUARE]}, ("version must be 1",)),
    _polygon("a list for all", "[]", ("must be an object",)),
    _polygon("nothing", "", ("cannot be read",)),
    _polygon("another field", {"version": 1, "x": "a", "y": "b", "polygons": [SQUARE], "z": 1}, ("other fields",)),
    _polygon("a name that stands twice", '{"version": 1, "version": 1}', ("'version' stands twice",)),
    _polygon("nesting 100,000 deep", "[" * 100_000, ("nested too deeply",)),
    _polygon("10,000 vertices", [_circle(10_000)], right=_selects(120)),
    _polygon("edges that cross", [[[-100, 0], [100, 1e-9], [100, 0], [-100, 1e-9]]], right=_selects(0)),
    _polygon("the whole plane", [LARGE], right=_selects(120)),
    _polygon("drawn over itself, so that it cancels", [TWICE], right=_selects(0)),
    _selection("cut in the middle", lambda content: json.dumps(content)[:-20], ("cannot be read", "carto_core select")),
    _selection("of bytes", lambda content: b"\xff\xfe\x00", ("not UTF-8",)),
    _selection("of another version", lambda content: content | {"version": 9}, ("version must be 1",)),
    _selection("of another corpus", lambda content: content | {"corpus_sha256": "f" * 64}, ("another corpus",)),
    _selection("a key that is none", lambda c: c | {"keys": ["ghost"], "num_samples": 1}, ("not in run good", "ghost")),
    _selection("keys that are numbers", lambda content: content | {"keys": [1, 2]}, ("keys[0]", "a text")),
    _selection("a key twice", lambda content: content | {"keys": content["keys"][:1] * 2}, ("different ones",)),
    _selection("another count", lambda content: content | {"num_samples": 10**6}, ("num_samples",)),
    _selection("a rule that is a text", lambda content: content | {"rule": "all of them"}, ("rule must be an object",)),
    _selection("a rule of no type", lambda content: content | {"rule": {"type": "magic"}}, ("'magic'",)),
    _selection("a rule of rules that are none", lambda c: c | {"rule": {"type": "any", "rules": [3]}}, ("got 3",)),
    _selection("a rule nested 500 deep", lambda content: content | {"rule": _deep(500)}, ("nested 500 levels",)),
    _selection("a directory", lambda content: "{}", ("is missing",)),
    _keys("empty", "\n\n", ("holds no key",)),
    _keys("bytes", b"\xff\xfe", ("cannot read the key file",)),
    _keys("keys that are none", "ghost\nspirit\n", ("2 keys are not in run good", "ghost, spirit")),
    _keys("a key that a spreadsheet would run", "=1+1\n", right=_selects(1)),
    _keys("Windows line ends and a byte-order mark", b"\xef\xbb\xbftiny/0001\r\ntiny/0002\r\n", right=_selects(2)),
    _plan("a hash that is none", ("plan_sha256", "SHA-256"), plan_sha256="../../../etc/passwd"),
    _plan("the hash of another plan", ("does not match the hash",), plan_sha256="0" * 64),
    _plan("another run's", ("another run",), run_id="other"),
    _plan("another corpus's", ("another run",), corpus_sha256="1" * 64),
    _plan("without notes", ("notes is missing",), notes=...),
    _plan("a version to come", ("version must be 1",), version=2),
    _plan("a rule that is none", ("rule must be an object",), rule=None),
    _plan("a rule of forged fields", ("q must be a finite number",), rule={"type": "top", "by": "x", "q": "all"}),
    _rows("cut in the middle", lambda path: path.write_bytes(path.read_bytes()[:200]), ("not a readable plan",)),
    _rows("another repeat", _put("repeat", lambda v: [7, *v[1:]]), ("does not match the hash",)),
    _rows("a repeat that is null", _put("repeat", lambda v: [None, *v[1:]]), ("not a readable plan",)),
    _rows("a weight of NaN", _put("weight", lambda v: [math.nan, *v[1:]]), ("does not match",)),
    _rows("a key that is another's", _put("key", lambda v: ["x", *v[1:]]), ("another run",)),
    _rows("words for repeats", _put("repeat", lambda v: ["many"] * len(v)), ("not a readable plan",)),
    _audit("not JSON", "perplexity", "{", ("perplexity.json cannot be read", "carto_core audit good perplexity")),
    _audit("a list", "perplexity", "[]", ("must be an object",)),
    _audit("NaN for a number", "perplexity", '{"definition": "d", "summary": {"perplexity": NaN}}', ("NaN",)),
    _audit("a number too large", "perplexity", '{"summary": {"perplexity": 1e400}}', ("1e400",)),
    _audit("a word for a number", "perplexity", _perplexity(perplexity="low"), ("summary.perplexity", "'low'")),
    _audit(
        "a sample that is none",
        "natural",
        {
            "definition": "d",
            "summary": SHARE,
            "per_item": [
                {"group_size": 2, "extracted": True, "sample_ids": [10**6], "prefix": "", "expected": "", "decoded": ""}
            ],
        },
        ("does not have",),
    ),
    _audit("a share above 1", "natural", _natural(rate=7), ("rate", "0 to 1")),
    _audit("an interval with one end", "natural", _natural(low=None), ("a share with an interval",)),
    _audit("an interval upside down", "natural", _natural(low=0.9, high=0.1), ("a share with an interval",)),
    _audit("an interval of nothing known", "natural", _natural(rate=None), ("a share with an interval",)),
    _audit("nothing known of two samples", "natural", _natural(rate=None, low=None, high=None), ("or three nulls",)),
    _audit(
        "an attack without figures",
        "membership",
        {
            "definition": "d",
            "summary": {"num_members": 1, "num_nonmembers": 1, "attacks": {"loss": {"status": "run"}}},
            "per_item": [],
        },
        ("summary.attacks",),
    ),
    _measure("no arm", ("no arm of the plan",), arms=[]),
    _measure("an arm without a seed", ("arms[0]",), arms=[{"arm": "plan"}]),
    _measure("no effect", ("no effect of the plan",), effects=[]),
    _measure(
        "an effect's interval upside down", ("both null, or in order",), effects=[EFFECT | {"low": 1, "high": -1}]
    ),
    _measure("an effect's interval with one end", ("both null, or in order",), effects=[EFFECT | {"high": None}]),
    _measure("an effect on a metric that is none", ("metric",), effects=[{"metric": "luck"}]),
    _other("prepared.json: not JSON", "prepared/prepared.json", "{", "preview", ("cannot be read", "prepare good")),
    _other("prepared.json: a count that is none", "prepared/prepared.json", {"version": 1}, "preview", ("is missing",)),
    _other("prepared counts: cut in the middle", "prepared/data.npy", b"\x93NUMPY", "preview", ("prepare good",)),
    _other("a probe's file of bytes", "probes/twin.parquet", b"PAR1", "score", ("twin.parquet", "cannot be read")),
]
