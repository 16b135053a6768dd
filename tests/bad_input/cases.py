"""What one kind of bad input is, and what became of it: the table that tests and `benchmarks.bad_input` run."""

import contextlib
import hashlib
import io
import json
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from carto_core import cli
from carto_core.store.reader import Run, open_run
from tests import tiny

COMMAND, CORPUS, TRAJECTORIES, FILES, RUNS, ADDRESS, PAGES = (
    "command line",
    "corpus",
    "losses to import",
    "files of the contract",
    "run directory",
    "address",
    "pages",
)


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        door: where it comes in.
        name: what is bad about it, in words.
        make: writes it under a place and returns the arguments that give it to the command line.
        says: pieces that the sentence on stderr must hold, in any order; for legal input empty.
        right: for input that is odd but legal: whether the result, one JSON object, is right.
    """

    door: str
    name: str
    make: Callable[["Place"], list]
    says: tuple[str, ...] = ()
    right: Callable[["Place", dict], bool] | None = None


@dataclass(frozen=True)
class Place:
    """A folder of one's own, with a good run in it."""

    root: Path

    @classmethod
    def at(cls, root, template=None):
        """Make a place; from a template that `template` made, which is faster."""
        if template is None:
            made = tiny.make_run(root / "runs" / "good", num_samples=120, num_snapshots=5, probes=True)
            tiny.prepare(made)
            place = cls(root)
            place.call("select", "good", "--top", 0.1, "--by", "final_loss", "--out", root / "s.json")
            place.call("plan", "good", root / "s.json", "--action", "prune")
            return place
        shutil.copytree(template.root, root, dirs_exist_ok=True)
        return cls(root)

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def good(self) -> Run:
        return open_run(self.runs / "good")

    @property
    def plan(self) -> Path:
        """A plan of the good run."""
        return next((self.runs / "good" / "plans").iterdir())

    def call(self, *arguments):
        """Return what a verb that must work prints."""
        code, out, err = carto(self, *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def write(self, name, content) -> Path:
        """Write text, bytes or JSON under the place and return the file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return path

    def change(self, path, **fields):
        """Replace some fields of a JSON file; a field that is `...` is taken out."""
        content = json.loads(path.read_text()) | fields
        path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


def carto(place, *arguments):
    """Run the command line in this process; return exit code (a text for a traceback), standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    code = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([*map(str, arguments), *_root(place, arguments)])
        except SystemExit as end:
            code = end.code
        except BaseException:  # noqa: BLE001 (whatever it is, a person would see it)
            code = f"traceback: {traceback.format_exc(limit=-3)}"
    return code, out.getvalue(), err.getvalue()


def _root(place, arguments):
    """The runs root for the verbs that take one."""
    takes = "--runs-root" in [option for param in _params(arguments) for option in param.opts]
    return ["--runs-root", str(place.runs)] if takes else []


def _params(arguments):
    command = cli.cli.commands.get(str(arguments[0])) if arguments else None
    return [] if command is None else command.params


def problems(case, place):
    """Run a case and return what went wrong with it: a list of sentences, empty where all is as it must be."""
    arguments = case.make(place)
    before = pictures(place.root)
    code, out, err = carto(place, *arguments, "--json")
    if isinstance(code, str):
        return [code]
    if case.right is not None:
        return _problems_of_result(case, place, code, out, err)
    found = [] if code == 2 else [f"exit code {code}: {err}"]
    lines = err.splitlines()
    if len(lines) != 1 or not lines[0].startswith("error: ") or not lines[0].isprintable():
        found.append(f"not one plain line on stderr: {err!r}")
    found += [f"the sentence lacks {piece!r}: {err}" for piece in case.says if piece not in err]
    found += [] if _is_error(out) else [f"not one JSON object with error and message on stdout: {out!r}"]
    after = pictures(place.root)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return found + [f"changed on disk: {name}" for name in changed]


def _problems_of_result(case, place, code, out, err):
    if code != 0:
        return [f"legal input was refused: {code}, {err}"]
    return [] if case.right(place, json.loads(out)) else [f"wrong number: {out[:500]}"]


def _is_error(out):
    try:
        return set(json.loads(out)) == {"error", "message"}
    except ValueError:
        return False


def pictures(folder):
    """Return by path the SHA-256 of every file below a folder, and where every link leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found
