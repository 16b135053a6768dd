"""Feed every door made-up and mutated input for minutes, and say what came out that was neither a sentence nor right.

python -m benchmarks.fuzz --minutes 10 [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings

from carto_core.store.rundir import now, write_json
from tests.bad_input.cases import Place
from tests.bad_input.fuzzers import FUZZERS, tried

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "fuzz.json"
ROUND = settings(
    max_examples=300, database=None, deadline=None, print_blob=False, suppress_health_check=list(HealthCheck)
)


def main() -> None:
    """Run the fuzzers one after the other, print a line each, and add them to `docs/results/fuzz.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", choices=[*FUZZERS, []], help="which; none means all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # numbers beyond all measure overflow on their way to an answer
    for name in asked.names or FUZZERS:
        found = fuzz(name, minutes=asked.minutes, first_seed=asked.seed)
        _keep(name, found)
        print(
            f"{name}: {found['examples']:,} examples in {found['minutes']:.1f} minutes, {len(found['findings'])} findings"
        )


def fuzz(name: str, *, minutes: float, first_seed: int) -> dict[str, Any]:
    """Return how many examples one fuzzer tried in so many minutes, and what was found."""
    began = time.monotonic()
    examples, rounds, findings = 0, 0, {}
    with tempfile.TemporaryDirectory() as folder:
        strategy, check = FUZZERS[name](Place.at(Path(folder)))
        one = tried(check)

        def counted(example: Any) -> None:
            nonlocal examples
            examples += 1
            one(example)

        while time.monotonic() - began < 60 * minutes:
            try:
                seed(first_seed + rounds)(ROUND(given(strategy)(counted)))()
            except Exception as error:  # noqa: BLE001 (whatever comes out is a finding)
                said = f"{type(error).__name__}: {str(error)[:300]}"
                findings.setdefault(said, traceback.format_exc()[-3000:])
            rounds += 1
    return {
        "examples": examples,
        "minutes": (time.monotonic() - began) / 60,
        "seeds": [[first_seed, first_seed + rounds - 1]],
        "findings": sorted(findings),
        "tracebacks": list(findings.values()),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "created": now(),
    }


def _keep(name: str, found: dict[str, Any]) -> None:
    """Add one fuzzer's result to what other runs of it, and the other fuzzers, have come to."""
    for said in found.pop("tracebacks"):
        print(said)
    before = json.loads(RESULTS.read_text(encoding="utf-8"))["fuzzers"] if RESULTS.is_file() else {}
    if earlier := before.get(name):
        found |= {part: earlier[part] + found[part] for part in ("examples", "minutes", "seeds", "findings")}
        found["peak_memory_mb"] = max(earlier["peak_memory_mb"], found["peak_memory_mb"])
    write_json(RESULTS, {"fuzzers": before | {name: found}})


if __name__ == "__main__":
    main()
