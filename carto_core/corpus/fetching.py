"""Fetch a named corpus once, check it against its pinned hashes, and write it as JSONL with a manifest beside it.

Texts come from the package registries of Node and Debian through their own clients; nothing else is contacted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carto_core.corpus.catalog import Corpus, corpus_entry, corpus_file
from carto_core.corpus.extracting import Record, mail_records, man_records, sotu_records
from carto_core.errors import CorpusError

PATIENCE_S = 600
Run = Callable[[Sequence[str], Path], str]
Versions = dict[str, str]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A prepared corpus on disk.

    Attributes:
        path: the JSONL.
        sha256: of the JSONL as it is.
        num_samples: its lines.
        num_characters: of its texts.
        versions: of the packages it was made from.
        fresh: whether this call made it.
        notes: sentences that its user must read: it is not the pinned corpus, and why.
    """

    path: Path
    sha256: str
    num_samples: int
    num_characters: int
    versions: Versions
    fresh: bool
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "path": str(self.path),
            "notes": list(self.notes),
        }


def run_command(command: Sequence[str], folder: Path) -> str:
    """Return what a command prints, run in `folder`.

    Raises:
        CorpusError: the program is not installed, fails, or takes more than 10 minutes.
    """
    program = shutil.which(command[0])
    if program is None:
        raise CorpusError(f"{command[0]} is not installed; this corpus is fetched with it, install it and try again")
    try:
        done = subprocess.run(
            [program, *command[1:]], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CorpusError(f"{' '.join(command)} took more than {PATIENCE_S} s; check the network") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise CorpusError(f"{' '.join(command)} failed, is there a network? It said: {'; '.join(said)[:300]}")
    return done.stdout


def fetch_corpus(name: str, folder: Path | None = None, *, run: Run = run_command) -> Fetched:
    """Return the named corpus, fetched and prepared where it is not there yet.

    A corpus that is there is checked against its manifest and left alone. One made from other package versions than
    the pinned ones, or that comes out differently, is kept and said: `notes` and the manifest name both.

    Args:
        name: in the catalog.
        folder: where to write; None is `data/corpora`.
        run: how commands are run.

    Raises:
        UnknownNameError: there is no corpus of that name.
        CorpusError: it cannot be fetched, the archive is not the pinned one, or the file was changed since.
    """
    entry, path = corpus_entry(name), corpus_file(name, folder)
    if entry.bundled:
        return _described(entry, path, {}, fresh=False)
    if path.is_file():
        return _checked(name, entry, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=path.parent) as work:
        fetch, extract = _ROUTES[name]
        opened, versions = fetch(entry, Path(work), run)
        fresh = Path(work) / path.name
        _write(fresh, extract(opened))
        fetched = _described(entry, fresh, versions, fresh=True)
        manifest = fetched.to_dict() | {
            "name": name,
            "path": path.name,
            "title": entry.title,
            "licence": entry.licence,
            "pinned_sha256": entry.sha256,
            "pinned_versions": dict(entry.packages),
        }
        del manifest["fresh"]
        _manifest_of(path).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        fresh.replace(path)
    return _described(entry, path, versions, fresh=True)


def _fetch_npm(entry: Corpus, work: Path, run: Run) -> tuple[Path, Versions]:
    """Return the package's archive, compared with its pinned hash."""
    ((package, version),) = entry.packages
    printed = run(["npm", "pack", f"{package}@{version}", "--silent"], work).split()
    archive = work / Path(printed[-1]).name if printed else work / "nothing"
    if not archive.is_file():
        raise CorpusError(f"npm pack {package}@{version} left no archive behind")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != entry.archive_sha256:
        raise CorpusError(
            f"the archive of {package}@{version} is not the pinned one and is not used: SHA-256 {found}, "
            f"wanted {entry.archive_sha256}"
        )
    return archive, {package: version}


def _fetch_apt(entry: Corpus, work: Path, run: Run) -> tuple[Path, Versions]:
    """Return the folder that the packages are unpacked in, whatever version the distribution has."""
    names = [package for package, _ in entry.packages]
    run(["apt-get", "download", *names], work)
    root, versions = work / "root", {}
    for name in names:
        archives = sorted(work.glob(f"{name}_*.deb"))
        if not archives:
            raise CorpusError(f"apt-get download {name} left no package behind; run apt-get update and try again")
        versions[name] = run(["dpkg-deb", "--field", archives[0].name, "Version"], work).strip()
        run(["dpkg", "-x", archives[0].name, root.name], work)
    return root, versions


_ROUTES: dict[str, tuple[Callable[[Corpus, Path, Run], tuple[Path, Versions]], Callable[[Path], Iterable[Record]]]] = {
    "sotu": (_fetch_npm, sotu_records),
    "mail": (_fetch_npm, mail_records),
    "man": (_fetch_apt, man_records),
}


def _checked(name: str, entry: Corpus, path: Path) -> Fetched:
    """Return the corpus that is there, after comparing it with the pinned hash, else with its manifest."""
    found = _sha256(path)
    if found == entry.sha256:
        return _described(entry, path, dict(entry.packages), fresh=False)
    again = f"delete it and run again: python -m carto_core corpus {name}"
    try:
        manifest = json.loads(_manifest_of(path).read_text(encoding="utf-8"))
        made, versions = str(manifest["sha256"]), dict(manifest["versions"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CorpusError(f"{path} has no readable manifest beside it; {again}") from None
    if found != made:
        raise CorpusError(f"{path} was changed since it was made (SHA-256 {found}, was {made}); {again}")
    return _described(entry, path, versions, fresh=False)


def _described(entry: Corpus, path: Path, versions: Versions, *, fresh: bool) -> Fetched:
    with path.open(encoding="utf-8") as lines:
        lengths = [len(json.loads(line)["text"]) for line in lines]
    sha256 = _sha256(path)
    notes = []
    if sha256 != entry.sha256:
        pinned = ", ".join(f"{package} {version}" for package, version in entry.packages) or "the bundled file"
        here = ", ".join(f"{package} {version}" for package, version in versions.items()) or "a changed file"
        notes.append(
            f"not the pinned corpus: made from {here} (SHA-256 {sha256}), pinned is {pinned} (SHA-256 {entry.sha256}); "
            "figures of the two do not compare"
        )
    return Fetched(path, sha256, len(lengths), sum(lengths), versions, fresh, tuple(notes))


def _write(path: Path, records: Iterable[Record]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _manifest_of(path: Path) -> Path:
    return path.with_suffix(".manifest.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
