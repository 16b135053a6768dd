"""What the design promises of the code's shape; the direction of imports is `lint-imports`' to check."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from carto_core import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = [*ROOT.glob("carto_core/**/*.py"), *ROOT.glob("pages/*.py"), ROOT / "app.py"]


def imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    return {
        name.split(".")[0]
        for name in names + [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    }


@pytest.mark.parametrize("page", [*ROOT.glob("pages/*.py"), ROOT / "app.py"], ids=lambda p: p.name)
def test_a_page_only_arranges(page):
    assert imported(page) <= {"carto_core"}
    assert len(page.read_text().splitlines()) < 20


def test_one_file_touches_the_session_and_the_address():
    touching = {
        p.relative_to(ROOT).as_posix() for p in SOURCES if re.search(r"st\.(session_state|query_params)", p.read_text())
    }

    assert touching == {"carto_core/ui/state.py"}


@pytest.mark.parametrize(
    "module",
    [
        "carto_core.ui.shell",
        "carto_core.ui.panels.intervene",
        "carto_core.workflows.light",
        "carto_core.jobs",
        "carto_core.export",
    ],
)
def test_what_the_dashboard_imports_never_loads_torch(module):
    code = f"import {module}, sys; sys.exit(bool({{'torch', 'datasets', 'transformers'}} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_engine_and_the_part_writer_need_neither_duckdb_nor_streamlit():
    code = "import carto_core.engine.loop, carto_core.store.writer, sys; sys.exit(bool({'duckdb', 'streamlit'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_module_says_what_it_is_for():
    silent = [p.name for p in SOURCES if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]

    assert silent == []


def test_every_verb_has_help_and_stands_in_the_readme():
    for name, command in cli.cli.commands.items():
        assert command.help, name
        assert f"carto_core {name}" in README, name


def readme_commands():
    blocks = re.findall(r"^```bash\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


@pytest.mark.parametrize("line", readme_commands())
def test_every_command_in_the_readme_is_understood(line):
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:3] == ["python", "-m", "carto_core"]:
        command = cli.cli.commands[words[3]]
        with click.Context(command) as context:
            command.parse_args(context, words[4:])
    else:
        assert words[:2] == ["python", "-m"]
        assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()


def test_the_readmes_tree_is_the_repositorys():
    block = re.search(r"```text\n(.*?)```", README, re.DOTALL).group(1)
    named, folder = set(), ""
    for line in block.splitlines():
        path = line.split("  ")[0] if not line.startswith("  ") else folder + line.split()[0]
        folder = path if not line.startswith("  ") and path.endswith("/") else folder if line.startswith("  ") else ""
        named.add(path.strip())
    missing = {name for name in named if not (ROOT / name).exists()}
    assert missing == set()
    there = {f"carto_core/{p.name}{'/' if p.is_dir() else ''}" for p in (ROOT / "carto_core").iterdir()}
    untold = {n for n in there if "__" not in n} - named
    assert untold == set()
