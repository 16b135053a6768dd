"""Run the table of bad input: how many kinds, how many end in a traceback, how many in a wrong number.

python -m benchmarks.bad_input [--table]     --table prints the table as Markdown, as docs/reliability.md can hold it
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from carto_core.store.rundir import now, write_json
from tests.bad_input.addresses import READ, REFUSED
from tests.bad_input.cases import ADDRESS, Case, Place, problems
from tests.bad_input.table import CASES

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "bad_input.json"


def main() -> None:
    """Run all cases, print what came of them, and write `docs/results/bad_input.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", action="store_true", help="print the table as Markdown and run nothing")
    if parser.parse_args().table:
        print(table())
        return
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        template = Place.at(Path(folder) / "template")
        for number, case in enumerate(CASES):
            found[f"{case.door}: {case.name}"] = problems(case, Place.at(Path(folder) / str(number), template))
    wrong = {name: said for name, said in found.items() if said}
    facts = {
        "kinds": len(found),
        "by_door": dict(Counter(case.door for case in CASES)),
        "tracebacks": sum(any("traceback" in line for line in said) for said in wrong.values()),
        "wrong_numbers": sum(any("wrong number" in line for line in said) for said in wrong.values()),
        "files_changed": sum(any("changed on disk" in line for line in said) for said in wrong.values()),
        "other_problems": len(wrong),
        "addresses": {"refused": len(REFUSED), "read": len(READ)},
        "problems": wrong,
        "created": now(),
    }
    write_json(RESULTS, facts)
    print(
        f"{facts['kinds']} kinds ({', '.join(f'{count} {door}' for door, count in facts['by_door'].items())}): "
        f"{facts['tracebacks']} tracebacks, {facts['wrong_numbers']} wrong numbers, {facts['files_changed']} changed files; "
        f"beside them {len(REFUSED) + len(READ)} addresses, which tests/ui/test_bad_links.py opens"
    )
    for name, said in wrong.items():
        print(f"  {name}: {'; '.join(said)}")


def table() -> str:
    """Return the table as Markdown: where it comes in, what is bad, what the sentence holds."""
    rows = [(case.door, case.name, _said(case)) for case in CASES]
    rows += [(ADDRESS, name, "The link's view could not be read, so the map starts afresh.") for name in REFUSED]
    rows += [(ADDRESS, name, "(legal: read as it is)") for name in READ]
    return "\n".join(["| door | what is bad | the sentence holds |", "| --- | --- | --- |", *map(_row, rows)])


def _said(case: Case) -> str:
    return " … ".join(case.says) or "(legal: the result is checked)"


def _row(cells: tuple[str, str, str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


if __name__ == "__main__":
    main()
