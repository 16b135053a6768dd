"""What `audits/NAME.json` and the results of retrains must hold for pages, reports and comparisons to read them."""

from __future__ import annotations

from typing import Any

from carto_core.store.shapes import (
    COUNT,
    FLAG,
    INTERVAL,
    NUMBER,
    OBJECT,
    SHA256,
    SHARE,
    TEXT,
    WHOLE,
    WHOLE_OBJECT,
    Kind,
    Shape,
    among,
    by_name,
    maybe,
    optional,
)
from carto_core.types import ROLES

COUNTED = {"k": COUNT, "n": COUNT}
PROPORTION = COUNTED | {name: maybe(SHARE) for name in ("rate", "low", "high")}
PROPORTION |= {WHOLE_OBJECT: Kind("a share with an interval, or three nulls", lambda part: _is_known(part, "rate"))}
SPREAD = {"n": COUNT} | {name: maybe(NUMBER) for name in ("mean", "median", "low", "high")}
SPREAD |= {WHOLE_OBJECT: Kind("a median with quartiles, or three nulls", lambda part: _is_known(part, "median"))}
RANKED = {"n": COUNT, "known": COUNT, "first": COUNT, "unknown": COUNT}
FIGURES = {"value": maybe(NUMBER), "low": maybe(NUMBER), "high": maybe(NUMBER), "note?": maybe(TEXT)}
FIGURES |= {WHOLE_OBJECT: INTERVAL}
ROLE = among(*ROLES)
CANARY = {"canary_id": COUNT, "kind": TEXT, "role": ROLE, "repeats": COUNT, "inserted": FLAG}
ANSWER = Kind("true, false or null", lambda value: value is None or isinstance(value, bool))


def _is_known(part: dict[str, Any], name: str) -> bool:
    return (
        INTERVAL.fits(part)
        and (part[name] is None) == (part["low"] is None)
        and (part["n"] == 0 or part[name] is not None)
    )


def _by_insertion(part: dict[str, Any]) -> dict[str, Any]:
    """Return the shape of one part cut as `groups.by_insertion` does."""
    cuts = {"by_repeats": by_name(part), "by_kind?": by_name(part)}
    return {"inserted": part | {"unknown?": COUNT} | cuts, "control": part}


def _audit(summary: Shape, row: Shape) -> dict[str, Any]:
    return {"definition": TEXT, "summary": summary, "per_item": [row]}


_EXTRACTION = _by_insertion(PROPORTION)
_EXPOSURE = _by_insertion(SPREAD)
_RECITED = PROPORTION | {"discoverable": PROPORTION}
_ATTACK = {"status": TEXT, "command?": TEXT, "auc?": FIGURES, "flag?": maybe(TEXT), "note?": maybe(TEXT)}
_ATTACK |= {f"tpr_at_fpr_{rate}?": FIGURES for rate in ("0.01", "0.001")}


def _is_whole_attack(value: Any) -> bool:
    """An attack that was run has all of its figures, another a command."""
    needed = ("auc", "flag", "note", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001")
    return all(name in value for name in needed) if value.get("status") == "run" else "command" in value


_ATTACKS = Kind(
    "the attacks with their figures",
    lambda value: by_name(_ATTACK).fits(value) and all(_is_whole_attack(part) for part in value.values()),
)
_WINDOW = {"context": COUNT, "stride": COUNT, "bos": TEXT, "predicted": TEXT}

SHAPES: dict[str, dict[str, Any]] = {
    "perplexity": _audit(
        {"nats_per_token": NUMBER, "perplexity": NUMBER, "num_tokens": COUNT, "num_samples": COUNT}
        | {"intervals?": by_name(FIGURES), "window?": _WINDOW, "tokenizer_sha256?": SHA256},
        OBJECT,
    ),
    "extraction": _audit(
        dict.fromkeys(ROLES, _EXTRACTION | {f"{way}?": _EXTRACTION for way in ("beam", "optimal", "discoverable")}),
        CANARY | {"extracted": FLAG, "extracted_beam?": ANSWER, "optimal?": ANSWER, "samples_needed?": maybe(NUMBER)},
    ),
    "exposure": _audit(
        dict.fromkeys(ROLES, _EXPOSURE | {"enumeration?": {"inserted": RANKED}})
        | {"num_references": Kind("a whole number above 0", lambda value: COUNT.fits(value) and value > 0)},
        CANARY
        | {"exposure": NUMBER, "reading?": TEXT, "rank_exact?": maybe(COUNT)}
        | {f"exposure_{way}?": maybe(NUMBER) for way in ("enumeration", "extrapolated")},
    ),
    "natural": _audit(
        PROPORTION,
        {"group_size": COUNT, "extracted": FLAG, "sample_ids": [COUNT]}
        | dict.fromkeys(("prefix", "expected", "decoded"), TEXT),
    ),
    "verbatim": _audit(
        _RECITED
        | {"longest_tokens": optional({"max": COUNT}), "by_group_size": by_name(_RECITED)}
        | {"by_prefix": by_name(PROPORTION)},
        {"sample_id": COUNT, "group_size": COUNT, "extracted": FLAG, "longest_tokens": COUNT, "longest_chars": COUNT}
        | {"log_p": NUMBER, "samples_needed": maybe(NUMBER), "k_extractable": maybe(COUNT)},
    ),
    "membership": _audit(
        {"num_members": COUNT, "num_nonmembers": COUNT, "left_out?": by_name(WHOLE), "attacks": _ATTACKS}, OBJECT
    ),
    "tokens": _audit({"num_samples": COUNT, "num_tokens": COUNT}, OBJECT),
}
