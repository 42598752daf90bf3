"""How much memory a waiting task costs the API and the worker, and how much they need at all.

Tasks are handed in for an agent that never answers: ten of its calls hang, the others wait. First
single tasks by POST /orchestrate, then, on a fresh engine, batches of 10,000 by POST
/orchestrate/batch. The processes have done some tasks of both kinds before the first reading, so
that what they need for their work counts as base, and are read when they have come to rest.

- ``rss``: what belongs to the process in memory, shared libraries included;
- ``private``: what would be free if it ended. Growth is that of ``private``.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.client import Client
from bench.processes import cpu_seconds, memory_of
from bench.stage import PAYLOAD, agent_process, guarded_config, submit
from tests.support.stack import Stack, running

PARTS = ("api", "worker")
WARM_UP = 1000
BATCH = 10_000
MAX_BASE_MB, MAX_GROWTH = 200, 1024
_REST_SHARE, _REST_SECONDS, _REST_AFTER = 0.1, 2.0, 60
_MB = 1024 * 1024

console = Console(stderr=True)


@dataclass(frozen=True)
class Reading:
    """Bytes of one process while so many tasks wait."""

    kind: str
    waiting: int
    part: str
    rss: int
    private: int


async def rest(stack: Stack) -> None:
    """Wait until the parts have next to nothing to do, or for a minute."""
    pids = [stack.pid_of(part) for part in (*PARTS, "engine")]
    for _ in range(int(_REST_AFTER / _REST_SECONDS)):
        before = [cpu_seconds(pid) for pid in pids]
        await asyncio.sleep(_REST_SECONDS)
        spent = [cpu_seconds(pid) - then for pid, then in zip(pids, before, strict=True)]
        if max(spent) < _REST_SHARE * _REST_SECONDS:
            return


async def read(stack: Stack, kind: str, waiting: int) -> list[Reading]:
    """One reading of each part, at rest."""
    await rest(stack)
    found = [_reading(kind, waiting, part, stack.pid_of(part)) for part in PARTS]
    console.print(
        f"{waiting:>6} {kind} waiting: "
        + ", ".join(f"{each.part} {each.private / _MB:.1f} MB" for each in found)
    )
    return found


def _reading(kind: str, waiting: int, part: str, pid: int) -> Reading:
    memory = memory_of(pid)
    return Reading(kind, waiting, part, memory.rss, memory.private)


async def singles(stack: Stack, number: int) -> None:
    """Hand in single tasks that wait."""
    await submit(stack.url, [{"pattern": "wait", "payload": PAYLOAD}] * number)


async def batches(stack: Stack, number: int, pattern: str = "wait") -> None:
    """Hand in batches of tasks, by default such that wait."""
    client = await Client.connect(stack.url)
    for _ in range(number // BATCH):
        body = [{"pattern": pattern, "payload": PAYLOAD}] * BATCH
        answer = await client.request("POST", "/orchestrate/batch", body)
        if "batch_id" not in answer:
            raise ValueError(f"a batch was not accepted: {answer}")
    client.close()


async def warm_up(stack: Stack) -> None:
    """Some work of both kinds, which ends."""
    await submit(stack.url, [{"pattern": "work", "payload": PAYLOAD}] * WARM_UP)
    await batches(stack, BATCH, "work")


async def measure(
    kind: str, steps: list[int], hand_in: Callable[[Stack, int], Awaitable[None]]
) -> list[Reading]:
    """The readings at each number of waiting tasks, on a product of its own."""
    with tempfile.TemporaryDirectory() as directory:
        async with (
            agent_process("--quiet") as agent,
            running(Path(directory), guarded_config(agent.url)) as stack,
        ):
            await warm_up(stack)
            readings = await read(stack, kind, 0)
            waiting = 0
            for step in steps:
                await hand_in(stack, step - waiting)
                waiting = step
                readings += await read(stack, kind, waiting)
    return readings


def summary(readings: list[Reading]) -> list[dict[str, Any]]:
    """The readings as rows, with the growth since the first of the same part."""
    base = {(each.kind, each.part): each for each in readings if not each.waiting}
    return [
        {
            "kind": each.kind,
            "part": each.part,
            "waiting": each.waiting,
            "rss_mb": round(each.rss / _MB, 1),
            "private_mb": round(each.private / _MB, 1),
            "bytes_per_task": round(
                (each.private - base[each.kind, each.part].private) / each.waiting
            )
            if each.waiting
            else None,
        }
        for each in sorted(readings, key=lambda each: (each.kind, each.part, each.waiting))
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """The table for people."""
    table = Table(title="Memory while tasks wait")
    for heading in ("", "part", "waiting", "RSS MB", "private MB", "bytes a task", "goal"):
        table.add_column(heading, justify="right")
    for row in rows:
        growth = row["bytes_per_task"]
        if growth is None:
            goal = f"RSS at most {MAX_BASE_MB} MB"
        else:
            # What is kept for the latest tasks, however many wait, is not one task's.
            goal = f"at most {MAX_GROWTH}" if row["waiting"] >= BATCH else ""
        cells = [row[name] for name in ("kind", "part", "waiting", "rss_mb", "private_mb")]
        table.add_row(*map(str, cells), "" if growth is None else str(growth), goal)
    Console().print(table)


async def _all(single_steps: list[int], batch_steps: list[int]) -> list[Reading]:
    readings = []
    if single_steps:
        readings += await measure("singles", single_steps, singles)
    if batch_steps:
        readings += await measure("batched", batch_steps, batches)
    return readings


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m bench.memory --singles 0 --batches 5 --json",
    )
    parser.add_argument("--singles", type=int, default=10_000, help="single tasks; 0 for none")
    parser.add_argument("--batches", type=int, default=5, help="batches of 10,000; 0 for none")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    whole = options.singles
    single_steps = sorted({whole // 4, whole // 2, whole} - {0})
    batch_steps = sorted({BATCH, BATCH * options.batches} if options.batches else set())
    rows = summary(asyncio.run(_all(single_steps, batch_steps)))
    if options.json:
        print(json.dumps(rows))
    else:
        show(rows)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
