"""How many wrong programs the tests notice: mutants of the modules whose numbers matter, made and run by mutmut.

python -m benchmarks.mutations [--groups scores audits ...] [--sample 100] [--seed 0] [--children 2] [--explain] [--out FILE.json]

`make mutations` installs mutmut and runs this. All happens in a temporary copy of the tracked files, so that an interrupt leaves
no wrong code behind. A mutant is killed when a test of its group's own folder fails, or takes too long.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carto_core.audits.proportions import share
from carto_core.store.rundir import write_json

OUT = Path("docs/results/mutations.json")
EQUIVALENT = Path("benchmarks/equivalent_mutants.json")
NONE = "no.such.mutant"  # asked for alone, mutmut makes all mutants, times the tests and stops
KILLED = ("killed", "timeout", "caught by type check", "segfault")


@dataclass(frozen=True)
class Group:
    """Modules that are mutated together, and the tests that are to notice."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def _single(name: str) -> Group:
    return Group((f"carto_core/{name}.py",), (f"tests/test_{name}.py",))


GROUPS = {
    "scores": Group(("carto_core/scores/*.py",), ("tests/scores",)),
    "selection": Group(("carto_core/selection.py",), ("tests/test_selection.py", "tests/test_rules.py")),
    "rules": Group(("carto_core/rules.py",), ("tests/test_rules.py",)),
    **{name: _single(name) for name in ("interventions", "quotas", "quadrants")},
    "audits": Group(
        ("carto_core/audits/*.py",),
        ("tests/audits",),
        # half a minute each while little else runs: too long to be asked once for every mutant
        ("tests/audits/test_canary_audits.py", "tests/audits/test_verbatim.py::test_every_row_is_what_asking"),
    ),
}


def main() -> None:
    """Print a line per group and write all that survived."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--sample", type=int, default=100, help="mutants per group; 0 takes all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--explain", action="store_true", help=f"run nothing, only read {EQUIVALENT} anew")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    found = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.groups:
        if not given.explain:
            found[name] = measured(GROUPS[name], sample=given.sample, seed=given.seed, children=given.children)
        found[name] = explained(found[name], json.loads(EQUIVALENT.read_text(encoding="utf-8")))
        write_json(given.out, found)
        print(f"{name}: {said(found[name])}", flush=True)


def measured(group: Group, *, sample: int, seed: int, children: int) -> dict[str, Any]:
    """Return what became of a seeded sample of a group's mutants, JSON-ready."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        root = Path(folder)
        _copy_tracked_files(root)
        (root / "setup.cfg").write_text(_settings(group), encoding="utf-8")
        _mutmut(root, "run", "--max-children", "1", NONE)
        names = sorted(_statuses(root))
        if not names:
            raise SystemExit("mutmut made no mutants: its own tests failed; run the group's tests first")
        chosen = random.Random(seed).sample(names, min(sample or len(names), len(names)))
        _mutmut(root, "run", "--max-children", str(children), *chosen)
        statuses = _statuses(root)
        survived = [name for name in sorted(chosen) if statuses[name] not in KILLED]
        alive = [{"mutant": name, "status": statuses[name]} | change(root, name) for name in survived]
    return {
        "mutants": len(names),
        "sampled": len(chosen),
        "seed": seed,
        "statuses": dict(Counter(statuses[name] for name in chosen)),
        "survived": alive,
    }


def explained(found: dict[str, Any], reasons: list[dict[str, str]]) -> dict[str, Any]:
    """Return a group's result with what is known of its survivors, and the shares killed of all and of those that differ."""
    alive = [mutant | {"equivalent": _why(mutant, reasons)} for mutant in found["survived"]]
    equivalent = sum(mutant["equivalent"] is not None for mutant in alive)
    killed = [True] * (found["sampled"] - len(alive))
    return found | {
        "killed": share([*killed, *[False] * len(alive)]),
        "equivalent": equivalent,
        "killed_of_those_that_differ": share([*killed, *[False] * (len(alive) - equivalent)]),
        "survived": alive,
    }


def said(found: dict[str, Any]) -> str:
    """Return a group's figures in one line."""
    every, rest = found["killed"], found["killed_of_those_that_differ"]
    return (
        f"{every['k']} of {every['n']} killed, {every['rate']:.1%} [{every['low']:.1%}, {every['high']:.1%}], of {found['mutants']} "
        f"mutants in all; {rest['rate']:.1%} [{rest['low']:.1%}, {rest['high']:.1%}] without {found['equivalent']} that are equivalent"
    )


def change(root: Path, mutant: str) -> dict[str, str]:
    """Return the lines that a mutant takes out and puts in, by reading mutmut's file of all variants of a function."""
    module, function = mutant.rsplit(".", 1)
    path = root / "mutants" / module.replace(".", "/")
    source = (path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py").read_text("utf-8")
    lines = source.splitlines()
    bodies = {
        node.name: lines[node.lineno : node.end_lineno]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }
    before, after = bodies[re.sub(r"__mutmut_\d+$", "__mutmut_orig", function)], bodies[function]
    return {
        "before": " ".join(line.strip() for line in before if line not in after),
        "after": " ".join(line.strip() for line in after if line not in before),
    }


def _why(mutant: dict[str, str], reasons: list[dict[str, str]]) -> str | None:
    """Return why no test can tell a mutant from the program, where that is known; reasons hold patterns of its name and lines."""
    told = {"function": mutant["mutant"], "before": mutant["before"], "after": mutant["after"]}
    for reason in reasons:
        if all(re.search(reason.get(name, ""), text) for name, text in told.items()):
            return reason["why"]
    return None


def _settings(group: Group) -> str:
    lists = {
        "source_paths": ["carto_core"],
        "only_mutate": group.modules,
        "also_copy": ["pages", "app.py", "data", "benchmarks"],
        "pytest_add_cli_args": [f"--deselect={test}" for test in group.left_out],
        "pytest_add_cli_args_test_selection": group.tests,
    }
    return "[mutmut]\n" + "".join(f"{name}=\n" + "".join(f"    {v}\n" for v in vs) for name, vs in lists.items() if vs)


def _copy_tracked_files(root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if Path(name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, root / name)


def _mutmut(root: Path, *arguments: str) -> str:
    """Run mutmut in the copy; its exit status says nothing about what we ask."""
    tools = str(Path(sys.prefix, "mutations"))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [tools, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False).stdout


def _statuses(root: Path) -> dict[str, str]:
    """Return every mutant's status as mutmut tells it."""
    told = _mutmut(root, "results", "--all", "true")
    return dict(line.strip().split(": ", 1) for line in told.splitlines() if "__mutmut_" in line)


if __name__ == "__main__":
    main()
