"""Bad input through the address bar: views that no page wrote. Each is refused with a sentence, or read as it is."""

import base64
import json
import zlib

from tests.bad_input.contract_files import _deep

BIG = 2**40


def packed(content):
    """What a page would put into a link for some content: bytes as they are, anything else as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(zlib.compress(raw, 9)).decode().rstrip("=")


REFUSED = {
    "words": "hello, world",
    "a path": "../../../../etc/passwd",
    "markup": "<script>alert(1)</script>",
    "base64 of nothing that was compressed": base64.urlsafe_b64encode(b"not compressed").decode(),
    "a stream cut in the middle": packed({"text": "river" * 50})[:20],
    "a bomb of a gigabyte": packed(b" " * 30_000_000),
    "a million characters": "A" * 1_000_000,
    "bytes that are no UTF-8": packed(b"\xff\xfe"),
    "a list": packed([1, 2]),
    "null": packed(None),
    "nesting 100,000 deep": packed(b"[" * 100_000),
    "a number of 5,000 digits": packed(b'{"cut_x": ' + b"9" * 5000 + b"}"),
    "a name that stands twice": packed(b'{"x": "a", "x": "b"}'),
    "NaN for a cut": packed(b'{"cut_x": NaN}'),
    "a cut beyond all": packed({"cut_x": 101}),
    "an infinite zoom": packed(b'{"zoom": [-Infinity, Infinity, 0, 1]}'),
    "a zoom of words": packed({"zoom": ["a", "b", "c", "d"]}),
    "a zoom turned round": packed({"zoom": [1, 0, 0, 1]}),
    "half a surrogate pair": packed(b'{"text": "\\ud800"}'),
    "a number for a text": packed({"text": 7}),
    "a text for a switch": packed({"restrict": "yes"}),
    "a source that is a text": packed({"source": "abc"}),
    "no token at all": packed({"max_tokens": 0}),
    "an action that is none": packed({"action": "delete"}),
    "a policy that is none": packed({"policy": "best"}),
    "a polygon of two vertices": packed({"polygons": [[[0, 0], [1, 1]]]}),
    "a polygon of words": packed({"polygons": [[["a", 0]] * 3]}),
    "a polygon of 10,000 vertices": packed({"polygons": [[[i, i * i] for i in range(10_000)]]}),
    "a polygon that is an object": packed({"polygons": {"0": 1}}),
    "a rule of no type": packed({"region": {"q": 1}}),
    "a rule that is a list": packed({"region": []}),
    "a rule nested 500 deep": packed({"region": _deep(500)}),
    "rules that are no list": packed({"region": {"type": "combined", "op": "add", "rules": "abc"}}),
    "a share that is an object": packed({"region": {"type": "top", "by": "difficulty", "q": {}}}),
}
READ = {  # odd, but what a page could have written, or harmless
    "nothing at all": {},
    "a field that is none": {"__class__": "os.system", "wings": 2},
    "markup as a search": {"text": "<script>alert(1)</script> $x^2$ **b**"},
    "emoji and right-to-left text as a search": {"text": "👩‍👩‍👧 \u202eשלום"},
    "an axis that is none": {"x": "luck", "y": "<b>", "colour": "no column"},
    "a length beyond all": {"max_tokens": BIG},
    "a rule on a score that is none": {"region": {"type": "range", "score": "luck", "low": 0, "high": None}},
    "a source that is none": {"source": ["nowhere"], "restrict": True},
    "keys that are none": {"region": {"type": "keys", "keys": ["ghost"]}},
}
