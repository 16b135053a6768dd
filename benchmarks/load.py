"""Many people on one server at once: how long a lasso takes, whether anything fails, whether memory stays flat.

python -m benchmarks.load --sessions 20 --interactions 200 --out docs/results/load.json

A real server on a made run. Most sessions speak the dashboard's own protocol over a WebSocket, each with its own state in
the server, as a browser's would; some are real Chromium pages with a real mouse (`--browsers`), for 20 pages that draw
would measure this machine's drawing. Every session draws outlines at random, waits as a person does, and compares the number of
samples on its page with a count by other means. A single session is measured in turns with the many, so that both meet the
same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import psutil
from scipy import stats
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import connect

from benchmarks.lines import commit
from carto_core.store.reader import Run
from carto_core.store.rundir import now, write_json
from carto_core.ui.launch import ADDRESS, free_port, streamlit_command
from carto_core.workflows import light

READY_S = 120
ANSWER_S = 300
LARGEST_ANSWER = 2**27
ROUNDS = 5  # a single session and many take turns so often


@dataclass
class Ground:
    """Where outlines are drawn: two scores of a run, and how many samples an outline must hold."""

    run_id: str
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, run: Run) -> Ground:
        """Return the run's own map."""
        table = light.load_table(run)
        return cls(run.run_id, table.scores[table.x].astype(float), table.scores[table.y].astype(float))

    def outline(self, rng: np.random.Generator) -> list[tuple[float, float]]:
        """Return a triangle somewhere in the middle of the map, its corners of five significant digits as the page keeps them."""
        ends = np.nanquantile(self.x, [0.05, 0.95]), np.nanquantile(self.y, [0.05, 0.95])
        corners = rng.random((3, 2))
        return [(_kept(a + u * (b - a)), _kept(c + v * (d - c))) for (a, b), (c, d) in [ends] for u, v in corners]

    def inside(self, outline: list[tuple[float, float]]) -> int:
        """Return how many samples lie in a triangle: on the same side of all three edges."""
        sides = [
            (bx - ax) * (self.y - ay) - (by - ay) * (self.x - ax)
            for (ax, ay), (bx, by) in zip(outline, outline[1:] + outline[:1], strict=True)
        ]
        return int((np.all([s > 0 for s in sides], axis=0) | np.all([s < 0 for s in sides], axis=0)).sum())


def _kept(value: float) -> float:
    return float(f"{value:.5g}")


@dataclass
class Log:
    """What was seen: seconds of every lasso, and in words whatever was wrong."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Session:
    """One person's page, over the dashboard's own protocol."""

    def __init__(self, socket: Any, ground: Ground) -> None:
        self.socket, self.ground, self.chart, self.polls = socket, ground, "", ""

    @classmethod
    @asynccontextmanager
    async def at(cls, address: str, ground: Ground, page: str = "map") -> Any:
        """Open a page, and close it in the end."""
        url = f"ws://{urlsplit(address).netloc}/_stcore/stream"
        async with connect(url, subprotocols=["streamlit"], origin=address, max_size=LARGEST_ANSWER) as socket:  # type: ignore[arg-type]
            session = cls(socket, ground)
            await session.ask(page)
            yield session

    async def ask(self, page: str = "map", *, event: str | None = None, fragment: str = "") -> str:
        """Run the page's script once, and return the words that it put on the page."""
        message = BackMsg()
        message.rerun_script.query_string = urlencode({"run": self.ground.run_id})
        message.rerun_script.page_name = page
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = bool(fragment)
        if event is not None:
            state = message.rerun_script.widget_states.widgets.add()
            state.id, state.string_value = self.chart, event
        await self.socket.send(message.SerializeToString())
        return await asyncio.wait_for(self._answer(), ANSWER_S)

    async def lasso(self, rng: np.random.Generator, log: Log) -> None:
        """Draw an outline, note how long the answer took, and compare its count with our own."""
        outline = self.ground.outline(rng)
        x, y = zip(*outline, strict=True)
        drawn = {"xref": "x2", "yref": "y2", "x": x, "y": y}
        event = {"selection": {"points": [], "point_indices": [], "lasso": [drawn], "box": []}}
        began = time.perf_counter()
        words = await self.ask(event=json.dumps(event))
        log.seconds.append(time.perf_counter() - began)
        expected = f"{self.ground.inside(outline):,} of {len(self.ground.x):,} samples in "
        if expected not in words:
            log.wrong.append(f"{self.ground.run_id}: the page does not say {expected!r}")

    async def _answer(self) -> str:
        words: list[str] = []
        while True:
            message = ForwardMsg.FromString(await self.socket.recv())
            kind = message.WhichOneof("type")
            if kind == "script_finished":
                return "\n".join(words)
            if kind == "auto_rerun":
                self.polls = message.auto_rerun.fragment_id
            if kind != "delta":
                continue
            element = message.delta.new_element
            words.append(element.markdown.body)
            if element.HasField("exception"):
                words.append(f"exception: {element.exception.message}")
            if element.HasField("plotly_chart") and element.plotly_chart.selection_mode:
                self.chart = element.plotly_chart.id


@contextmanager
def serving(runs_root: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Yield address and process of a server of its own."""
    port = free_port(None)
    environment = os.environ | {"CARTO_RUNS": str(runs_root)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(streamlit_command(port), env=environment, **quiet) as server:
        try:
            yield f"http://{ADDRESS}:{port}", psutil.Process(server.pid)
        finally:
            server.terminate()


async def until_ready(address: str, ground: Ground) -> None:
    """Wait until a page opens."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            async with Session.at(address, ground):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def many(address: str, grounds: list[Ground], log: Log, *, count: int, think_s: float, seed: int) -> None:
    """Let one session a ground draw `count` outlines each, all at once; pauses are exponential, of a mean of `think_s`."""

    async def one(number: int, ground: Ground) -> None:
        rng = np.random.default_rng([seed, number])
        try:
            async with Session.at(address, ground) as session:
                for _ in range(count):
                    await asyncio.sleep(rng.exponential(think_s))
                    await session.lasso(rng, log)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is counted)
            log.wrong.append(f"session {number}: {error!r}")

    await asyncio.gather(*(one(number, ground) for number, ground in enumerate(grounds)))


async def polled(address: str, ground: Ground, memory: Callable[[], float], *, polls: int) -> list[float]:
    """Let a page that watches a job ask again and again, as one left open does each second; return the memory after each tenth."""
    async with Session.at(address, ground, "audit") as session:
        if not session.polls:
            raise RuntimeError("the page that was left open asks for nothing: is there a job on its run?")
        sizes = []
        for number in range(polls):
            await session.ask("audit", fragment=session.polls)
            if (number + 1) % max(1, polls // 10) == 0:
                sizes.append(memory())
        return sizes


def drawn_with_a_mouse(address: str, ground: Ground, log: Log, *, count: int, think_s: float, seed: int) -> None:
    """Do the same in a real browser; seconds count from the mouse button's release until nothing on the page is stale."""
    from tests.browser.dashboard import chromium, settled
    from tests.browser.test_lasso import open_map, plot_area

    rng = np.random.default_rng([seed, 10**6])
    try:
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(1000 * ANSWER_S)
            open_map(page, f"{address}/map?run={ground.run_id}")
            for _ in range(count):
                time.sleep(rng.exponential(think_s))
                area = plot_area(page)
                corners = [(area["x"] + u * area["width"], area["y"] + v * area["height"]) for u, v in _wide(rng)]
                page.mouse.move(*corners[0])
                page.mouse.down()
                for corner in corners[1:]:
                    page.mouse.move(*corner, steps=4)
                before, began = page.url, time.perf_counter()
                page.mouse.up()
                page.wait_for_function("before => location.href !== before", arg=before)
                settled(page)
                log.seconds.append(time.perf_counter() - began)
                if page.get_by_test_id("stException").count() or not page.get_by_text(" samples in ").count():
                    log.wrong.append(f"{ground.run_id}: the page in the browser shows an error or no count")
    except Exception as error:  # noqa: BLE001 (whatever it is, it is counted)
        log.wrong.append(f"browser: {error!r}"[:300])


def _wide(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return the corners of a triangle in shares of the plot area, none thin."""
    return [
        (float(u), float(v)) for u, v in np.array([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]]) + rng.uniform(-0.1, 0.1, (3, 2))
    ]


async def measure(
    runs: list[Run],
    *,
    sessions: int,
    browsers: int,
    interactions: int,
    think_s: float,
    polls: int,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Return latencies of one session and of many, errors, memory over interactions and over polls, JSON-ready.

    The server's own processor time per lasso, page openings included, is told too: unlike seconds of waiting it does not depend on
    what else the machine does.

    Args:
        runs: two, so that sessions on one can be told from those on the other.
        sessions: at once, browsers among them.
        browsers: how many of these are real browsers.
        interactions: of each session, in all rounds together.
        think_s: mean pause before an interaction, in seconds.
        polls: of a page that is left open.
        rounds: how often one session and many take turns.
    """
    grounds = [Ground.of(runs[i % len(runs)]) for i in range(sessions)]
    logs = {name: Log() for name in ("one", "many", "one_in_browser", "many_in_browser")}
    count, memory_of = max(1, interactions // rounds), []
    with serving(runs[0].files.path.parent) as (address, server):
        await until_ready(address, grounds[0])

        def memory() -> float:
            return server.memory_info().rss / 2**20

        began = sum(server.cpu_times()[:2])
        for number in range(rounds):
            how = {"count": count, "seed": number}
            await many(address, grounds[:1], logs["one"], think_s=min(think_s, 1), **how)
            drawing: list[Any] = []
            if browsers:
                alone = how | {"count": max(1, count // 3)}
                await asyncio.to_thread(
                    drawn_with_a_mouse, address, grounds[0], logs["one_in_browser"], think_s=min(think_s, 1), **alone
                )
                drawing = [
                    asyncio.to_thread(
                        drawn_with_a_mouse, address, ground, logs["many_in_browser"], think_s=think_s, **alone
                    )
                    for ground in grounds[:browsers]
                ]
            watching = asyncio.create_task(_watched(memory, logs, memory_of))
            await asyncio.gather(many(address, grounds[browsers:], logs["many"], think_s=think_s, **how), *drawing)
            watching.cancel()
            _tell(number + 1, rounds, logs)
        lassos = sum(len(log.seconds) for log in logs.values())
        cost = (sum(server.cpu_times()[:2]) - began) / max(1, lassos)
        sizes = await polled(address, grounds[0], memory, polls=polls) if polls else []
    return _facts(logs, memory_of, sizes, polls=polls) | {"server_cpu_s_per_lasso": cost}


def _tell(done: int, rounds: int, logs: dict[str, Log]) -> None:
    medians = {name: _spread(log.seconds)["median_s"] for name, log in logs.items()}
    wrong = sum(len(log.wrong) for log in logs.values())
    print(f"round {done} of {rounds}: medians {medians}, {wrong} errors", file=sys.stderr, flush=True)


async def _watched(memory: Callable[[], float], logs: dict[str, Log], found: list[tuple[int, float]]) -> None:
    while True:
        found.append((sum(len(log.seconds) for log in logs.values()), memory()))
        await asyncio.sleep(1)


def _facts(
    logs: dict[str, Log], memory_of: list[tuple[int, float]], sizes: list[float], *, polls: int
) -> dict[str, Any]:
    wrong = [line for log in logs.values() for line in log.wrong]
    facts = {name: _spread(log.seconds) for name, log in logs.items()}
    one, several = facts["one"]["median_s"], facts["many"]["median_s"]
    return facts | {
        "ratio_of_medians": None if not one else several / one,
        "errors": len(wrong),
        "wrong": sorted(set(wrong))[:20],
        "memory_mib_by_interactions": _slope(memory_of),
        "memory_mib_while_polled": {"polls": polls, "sizes": [round(size, 1) for size in sizes]},
    }


def _spread(seconds: list[float]) -> dict[str, Any]:
    if not seconds:
        return {"n": 0, "median_s": None, "p95_s": None, "worst_s": None}
    return {
        "n": len(seconds),
        "median_s": float(np.median(seconds)),
        "p95_s": float(np.quantile(seconds, 0.95)),
        "worst_s": max(seconds),
    }


def _slope(points: list[tuple[int, float]]) -> dict[str, Any]:
    """Return the growth of memory over the later half of the interactions, with a 95 % interval of 20 means in a row.

    The first half fills caches that are bounded. Neighbouring samples are alike, so they are averaged in 20 groups first.
    """
    later = [(done, size) for done, size in points if done >= points[-1][0] / 2]
    facts = {"start": round(points[0][1], 1), "half": round(later[0][1], 1), "end": round(points[-1][1], 1)}
    if len(later) < 40:
        return facts | {"mib_per_1000": None, "low": None, "high": None}
    groups = [np.mean(group, axis=0) for group in np.array_split(np.array(later), 20)]
    x, y = np.array(groups).T
    found = stats.linregress(x, y)
    wide = stats.t.ppf(0.975, len(groups) - 2) * found.stderr
    return facts | {
        name: round(1000 * float(value), 2)
        for name, value in (("mib_per_1000", found.slope), ("low", found.slope - wide), ("high", found.slope + wide))
    }


@contextmanager
def watched_job(run: Run) -> Iterator[None]:
    """Let a job be under way on a run, so that its audit page asks for the progress each second."""
    folder, audits = run.files.path.parent / ".jobs" / "1", run.files.audits
    with subprocess.Popen(["sleep", "100000"]) as process:
        who = {"pid": process.pid, "pid_start": psutil.Process(process.pid).create_time()}
        where = {
            "progress": str(audits / "progress.jsonl"),
            "result": str(audits / "tokens.json"),
            "folder": str(folder),
        }
        what = {"job_id": "1", "kind": "audit", "run_id": run.run_id, "command": ["audit"], "created": now()}
        write_json(folder / "job.json", what | where | who)
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    """Make two runs, measure, print and write the results."""
    from tests.tiny import make_run

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--browsers", type=int, default=2, help="of the sessions")
    parser.add_argument("--interactions", type=int, default=200, help="of each session")
    parser.add_argument("--think", type=float, default=8.0, help="mean pause in seconds")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--polls", type=int, default=3600, help="of a page left open: an hour's")
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [make_run(Path(folder) / name, num_samples=asked.samples, seed=seed) for seed, name in enumerate("ab")]
        how = {"sessions": asked.sessions, "browsers": asked.browsers, "interactions": asked.interactions}
        load_before = os.getloadavg()
        with watched_job(runs[0]):
            facts = asyncio.run(measure(runs, **how, think_s=asked.think, polls=asked.polls))
    facts = {"version": 1, **how, "think_s": asked.think, "samples": asked.samples, **facts}
    facts |= {
        "cores": os.cpu_count(),
        "load_average": [*load_before, *os.getloadavg()],
        "commit": commit(),
        "created": now(),
    }
    print(json.dumps(facts, indent=1))
    if asked.out is not None:
        write_json(asked.out, facts)


if __name__ == "__main__":
    main()
