"""Full disk, read-only folder, clock set back, SIGTERM and Ctrl-C: how every command ends, and that it goes on afterwards.

    python -m benchmarks.faults [--moments 6] [--seed 0] [--out docs/results/faults.json]

A command under a fault must end with one line that begins with `error:`, with the documented exit code, with every committed
snapshot there and no temporary file left; done again without the fault it must come to what it comes to undisturbed. As root
on Linux the disk is a small file system that is really full; else no file may grow past a limit.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.killing import (
    Moment,
    Undisturbed,
    Verb,
    differences,
    files_of,
    perform,
    processes_left,
    snapshots_lost,
    start_forkserver,
    torn,
    undisturbed,
)
from benchmarks.kills import SHARES, describe_machine, draw_moment, make_verbs
from carto_core.store.rundir import now, write_json

DAY_S = 86_400
UNMOUNT_TRIES = 20
PROJECT = Path(__file__).parents[1]
REFUSED, STOPPED = 2, 1  # exit codes
ENDS = ("interrupted", "cancelled", "failed", "complete")
Tampering = tuple[Any, dict[str, Any]]  # the act, and what `perform` is told besides
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


@dataclass
class Outcome:
    """One command under one fault; `losses` are sentences on what was not as it should be."""

    fault: str
    verb: str
    code: int
    said: str
    losses: list[str]


def try_fault(
    context: Any, verb: Verb, expected: Undisturbed, folder: Path, fault: Callable[[Path, Any], Any], *, code: int
) -> Outcome:
    """Perform a verb under a fault, look at how it ended, lift the fault, do it again and compare.

    Args:
        context: see `start_forkserver`.
        verb: what is done.
        expected: what it comes to.
        folder: to work in, empty or absent.
        fault: a context manager over the folder that yields the verb's act and further arguments of `perform`.
        code: the exit code that the fault should give; a verb that the fault does not touch may end with 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    verb.begin(folder)
    _, there_before = files_of(folder)  # what an earlier kill left
    with fault(folder, verb.act) as (act, how):
        ended = perform(context, act, folder, **how)
        final, left_over = files_of(folder)
        losses = [] if ended.code in (0, code) else [f"exit code {ended.code}"]
        losses += _words_amiss(ended.said) if ended.code else []
        # A signal may come just as a temporary file is about to be removed; the next command removes it, see below.
        losses += [f"left over: {name}" for name in left_over if ended.code == REFUSED and name not in there_before]
        losses += [f"process {pid} is left" for pid in processes_left(ended.session)]
        losses += torn(folder, final) + snapshots_lost(folder, ended.changes, expected, statuses=ENDS)
    again = perform(context, verb.act, folder)
    losses += [f"again: {again.last_words}"] if again.code else []
    losses += differences(folder, expected)
    said = ended.said.strip()
    for place, name in ((folder, "FOLDER"), (sys.prefix, "PYTHON"), (sys.base_prefix, "PYTHON"), (PROJECT, "PROJECT")):
        said = said.replace(str(place), name)
    return Outcome("", verb.name, ended.code, said, losses)


def _words_amiss(said: str) -> list[str]:
    # A probe tells its cost first; Ctrl-C ends the line that the terminal shows as ^C.
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("about ")]
    return [] if len(lines) == 1 and lines[0].startswith("error: ") else [f"said {len(lines)} sentences: {lines[-1:]}"]


@contextmanager
def signalled(folder: Path, act: Any, *, moment: Moment) -> Iterator[Tampering]:
    """Let a signal come at a moment."""
    yield act, {"moment": moment}


@contextmanager
def limited(folder: Path, act: Any, *, size_bytes: int) -> Iterator[Tampering]:
    """Let no file grow past a size, as a quota would."""
    yield partial(_with_limit, act, size_bytes), {}


def _with_limit(act: Any, size_bytes: int, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
    act(folder)


@contextmanager
def refusing(folder: Path, act: Any, *, change: int) -> Iterator[Tampering]:
    """Let every change of a file from this one on fail for want of room."""
    yield act, {"room_until": change}


@contextmanager
def filled(folder: Path, act: Any, *, room_bytes: int) -> Iterator[Tampering]:
    """Let the file system that the folder is, mounted by `small_disk`, have no more than some room left."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast = folder.parent / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room_bytes))
    try:
        yield act, {}
    finally:
        ballast.unlink()


@contextmanager
def small_disk(folder: Path, *, size: str = "64m") -> Iterator[Path]:
    """Mount a small file system at a folder; as root on Linux."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        _unmount(folder)
        folder.rmdir()


def _unmount(folder: Path) -> None:
    """Unmount a file system; a process that has just ended may hold it a moment longer."""
    for _ in range(UNMOUNT_TRIES - 1):
        if subprocess.run(["umount", str(folder)], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def read_only(folder: Path, act: Any) -> Iterator[Tampering]:
    """Take away the right to write in the folder and all below it, from root as well."""
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for place in places:
        place.chmod(0o555)
    try:
        yield partial(_as_anybody, act), {}
    finally:
        for place in places:
            place.chmod(0o755)


def _as_anybody(act: Any, folder: Path) -> None:
    if os.geteuid() == 0:
        _give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    act(folder)


def _give_up(*capabilities: int) -> None:
    """Give up Linux capabilities of root, so that permissions bind it too."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    held = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    for capability in capabilities:
        held[0] &= ~(1 << capability)  # of the effective ones
    assert libc.capset(header, held) == 0


@contextmanager
def clock_set_back(folder: Path, act: Any) -> Iterator[Tampering]:
    """Let every file that is there be a day younger than now: so it looks after the clock was set back by a day."""
    for path in [*folder.rglob("*"), folder]:
        at = path.stat().st_mtime + DAY_S
        os.utime(path, (at, at))
    yield act, {}


def main() -> None:
    """Try every fault on every verb, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--moments", type=int, default=6, help="Moments or sizes of every fault that has such.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        outcomes = try_all(tuple(options.only), moments=options.moments, seed=options.seed, root=Path(root))
    tried = Counter((outcome.fault, outcome.code) for outcome in outcomes)
    for (fault, code), count in sorted(tried.items()):
        print(f"{count:4} ended with {code}: {fault}")
    lost = [outcome for outcome in outcomes if outcome.losses]
    print(f"{len(outcomes)} faults, {len(lost)} not as they should be, {time.monotonic() - began:.0f} s")
    if options.out is not None:
        figures = {
            "command": f"python -m benchmarks.faults --moments {options.moments} --seed {options.seed}",
            "created": now(),
            **describe_machine(),
            "faults": len(outcomes),
            "losses": len(lost),
            "by_fault": dict(Counter(outcome.fault for outcome in outcomes)),
            "seconds": round(time.monotonic() - began),
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        write_json(options.out, figures)
    sys.exit(1 if lost else 0)


def try_all(verbs: tuple[str, ...], *, moments: int, seed: int, root: Path) -> list[Outcome]:
    """Try every fault on these verbs."""
    context, rng = start_forkserver(), np.random.default_rng(seed)
    known = make_verbs(context, root)
    outcomes = []
    for name in verbs:
        verb = known[name]
        usual = undisturbed(context, verb, root / f"undisturbed-{name}")
        for title, fault, code in _faults(verb, usual, rng, moments):
            disk = small_disk if title.startswith("full disk") and os.geteuid() == 0 else _plain
            with disk(root / "disk") as place:
                outcome = try_fault(context, verb, usual, place / "trial", fault, code=code)
                shutil.rmtree(place / "trial")
            outcome.fault = title
            outcomes.append(outcome)
            lost = "; ".join(outcome.losses) or outcome.said[-150:] or "not touched"
            print(f"{title:20} {name:8} {outcome.code:3}  {lost}", file=sys.stderr, flush=True)
    return outcomes


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    yield folder
    folder.rmdir()


def _faults(verb: Verb, usual: Undisturbed, rng: np.random.Generator, moments: int) -> Iterator[tuple[str, Any, int]]:
    yield "read-only", read_only, REFUSED
    yield "clock set back", clock_set_back, 0
    for number in (signal.SIGTERM, signal.SIGINT):
        for place in range(moments):
            at = draw_moment(verb, usual, rng, at_change=place % 2 == 0)
            moment = Moment(at.change, at.delay_s, number)
            yield number.name, partial(signalled, moment=moment), STOPPED
    for size in np.geomspace(1_000, 3_000_000, moments).astype(int):
        if os.geteuid() == 0:
            yield "full disk", partial(filled, room_bytes=int(size)), REFUSED
        yield "limit on files", partial(limited, size_bytes=int(size)), REFUSED
    for change in rng.integers(0, len(usual.changes), moments):
        yield "no room from a change", partial(refusing, change=int(change)), REFUSED


if __name__ == "__main__":
    main()
