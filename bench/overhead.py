"""What HTTP adds to the engine's calls, and the framework to an empty route.

In turn, several times, in one run:

- ``submit``: POST /orchestrate against the start call alone, CPU of the API's process and the
  engine's; the tasks go no further than their agent's queue;
- ``status``: GET /status of a task that has ended, again and again, against one describe call,
  likewise; ``first status``: of many such tasks, each once, where nobody has asked before;
- ``health``: requests a second of GET /health against those of an empty route.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table
from temporalio.client import Client as Temporal

from bench.bare import PATTERN, many
from bench.children import child
from bench.client import Client
from bench.memory import rest
from bench.processes import cpu_seconds
from bench.stage import CONNECTIONS, PAYLOAD, agent_process, guarded_config
from bench.stage import submit as submit_all
from tests.support.stack import Stack, free_port, running

GOALS = {
    "submit": "at most 1.3",
    "status": "at most 1.5",
    "first status": "at most 1.5",
    "health": "at least 0.7",
}
_TIMES_READ = 5
_TIMES_ROUTE = 20


class Bare:
    """The process of bench/bare.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def order(self, *words: object) -> None:
        """Have it done."""
        assert self._process.stdin is not None  # noqa: S101 - they were asked for
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        if not await self._process.stdout.readline():
            raise RuntimeError("bench.bare has ended")


@asynccontextmanager
async def bare_process(stack: Stack) -> AsyncIterator[Bare]:
    """The process, with the configuration and the engine of the product."""
    environment = {**stack.variables(), "ORCHESTRATOR_TEMPORAL__ADDRESS": stack.engine}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.bare"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdin is not None  # noqa: S101 - it was asked for
    try:
        yield Bare(process)
    finally:
        process.stdin.close()
        await process.wait()


@dataclass(frozen=True)
class Bench:
    """The product, the bare calls, and the empty route."""

    stack: Stack
    bare: Bare
    route: str
    ended: str
    """The id of a task that has ended."""

    async def round(self, tasks: int) -> dict[str, dict[str, float]]:
        """Each thing with what it is compared to: CPU milliseconds, or requests a second."""
        reads, requests = _TIMES_READ * tasks, _TIMES_ROUTE * tasks
        api, bare = self.stack.pid_of("api"), self.bare.pid
        body = {"pattern": PATTERN, "payload": PAYLOAD}
        return {
            "submit": {
                "ours": await self._cpu(api, submit_all(self.stack.url, [body] * tasks), tasks),
                "bare": await self._cpu(bare, self.bare.order("start", tasks), tasks),
            },
            "status": {
                "ours": await self._cpu(api, self._status(reads), reads),
                "bare": await self._cpu(
                    bare, self.bare.order("describe", reads, self.ended), reads
                ),
            },
            "first status": await self._first_status(tasks),
            "health": {
                "ours": await self._rate(self.stack.url, "GET", "/health", requests),
                "bare": await self._rate(self.route, "POST", "/", requests),
            },
        }

    async def _cpu(self, pid: int, work: Awaitable[object], number: int) -> float:
        """Milliseconds that the process and the engine compute for one of so many."""
        pids = (pid, self.stack.pid_of("engine"))
        before = sum(map(cpu_seconds, pids))
        await work
        return 1000 * (sum(map(cpu_seconds, pids)) - before) / number

    async def _status(self, number: int) -> None:
        await self._requests(self.stack.url, "GET", f"/status/{self.ended}", number)

    async def _first_status(self, number: int) -> dict[str, float]:
        names = await _ended(self.stack, number)
        left = iter([f"/status/{name}" for name in names])
        await rest(self.stack)  # the engine writes its lists after a task has ended
        api, bare = self.stack.pid_of("api"), self.bare.pid
        ours = self._paths(self.stack.url, "GET", left, number)
        return {
            "ours": await self._cpu(api, ours, number),
            "bare": await self._cpu(bare, self.bare.order("describe", number, *names), number),
        }

    async def _rate(self, url: str, method: str, path: str, number: int) -> float:
        began = time.perf_counter()
        await self._requests(url, method, path, number)
        return number / (time.perf_counter() - began)

    @staticmethod
    async def _requests(url: str, method: str, path: str, number: int) -> None:
        await Bench._paths(url, method, itertools.repeat(path), number)

    @staticmethod
    async def _paths(url: str, method: str, paths: Iterator[str], number: int) -> None:
        clients = [await Client.connect(url) for _ in range(CONNECTIONS)]
        idle = list(clients)

        async def request() -> None:
            client = idle.pop()
            await client.request(method, next(paths))
            idle.append(client)

        await many(number, request)
        for client in clients:
            client.close()


async def measure(rounds: int, tasks: int) -> list[dict[str, dict[str, float]]]:
    """All rounds, the first left out."""
    with tempfile.TemporaryDirectory() as name:
        directory, port = Path(name), free_port()
        route = (sys.executable, "-m", "bench.subjects.empty_route", str(port))
        async with (
            agent_process("--quiet") as agent,
            running(directory, guarded_config(agent.url)) as stack,
            bare_process(stack) as bare,
            child(*route, log=directory / "route.log", port=port),
        ):
            ended = (await _ended(stack, 1))[0]
            bench = Bench(stack, bare, f"http://127.0.0.1:{port}", ended)
            await bench.round(tasks // 5)
            return [await bench.round(tasks) for _ in range(rounds)]


async def _ended(stack: Stack, number: int) -> list[str]:
    """The ids of so many tasks, after their end, of which only the engine was asked."""
    body = {"pattern": "work", "payload": PAYLOAD}
    engine = await Temporal.connect(stack.engine)
    ended: list[str] = []

    async def one() -> None:
        client = await Client.connect(stack.url)
        answer = await client.request("POST", "/orchestrate", body)
        client.close()
        if "task_id" not in answer:
            raise ValueError(f"a task was not accepted: {answer}")
        await engine.get_workflow_handle(answer["task_id"]).result()
        ended.append(str(answer["task_id"]))

    await many(number, one)
    return ended


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Medians, and their ratios with the goals."""
    found = {}
    for name, goal in GOALS.items():
        ours, bare = (statistics.median(each[name][side] for each in rounds) for side in _SIDES)
        found[name] = {
            "ours": round(ours, 3),
            "compared_to": round(bare, 3),
            "ratio": round(ours / bare, 2),
            "goal": goal,
        }
    return found


_SIDES = ("ours", "bare")


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table for people."""
    table = Table(title="CPU ms of a request; of health requests/s")
    for heading in ("", "ours", "compared to", "ratio", "goal"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        table.add_row(name, *map(str, row.values()))
    Console().print(table)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m bench.overhead --rounds 5 --json",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=300, help="submissions in each round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = summary(uvloop.run(measure(options.rounds, options.tasks)))
    if options.json:
        print(json.dumps(rows))
    else:
        show(rows)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
