"""What many tasks cost in one batch, against the same tasks one by one and against no engine.

Everything is measured in one run on one engine and one agent, in turn and several times, what is
short five times in each round:

- ``single``: so many tasks by POST /orchestrate, by 50 connections, until the last has ended;
- ``batch``: the same tasks by one POST /orchestrate/batch, until the batch is completed;
- ``large``: ten times as many in one batch;
- ``bare``: so many calls of the agent in a plain aiohttp loop, 50 at a time, with no orchestrator.

Then tasks of a batch, which have ended, are joined by POST /aggregate, and as many new ones are
started and joined. Every guard is on: breakers, a rate limit that refuses nobody,
heartbeats, a status for each task. The ratios of the medians are what counts.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from rich.console import Console
from rich.table import Table
from temporalio.client import Client as Temporal

from bench.client import Client
from bench.stage import CONNECTIONS, PAYLOAD, Agent, agent_process, guarded_config, submit
from orchestrator.batches import item_id
from tests.support.stack import Stack, running

TASK = {"pattern": "work", "payload": PAYLOAD}
TIMES_LARGE = 10
SHORT_TIMES = 5
"""In each round, what takes no second."""
GOALS = {"batch_to_single": 30.0, "batch_to_bare": 0.30, "large_to_batch": 0.75}
_POLL_SECONDS = 0.05
_WAIT = "Prefer: wait=60\r\n"

console = Console(stderr=True)


@dataclass
class Found:
    """What was measured: seconds by kind and round, and what the engine keeps of each batch."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    histories: dict[str, dict[str, float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def note(self, kind: str, size: int, seconds: float) -> None:
        """Keep the time of one round."""
        self.sizes[kind] = size
        self.seconds.setdefault(kind, []).append(seconds)
        console.print(f"{kind:>8}: {size} in {seconds:.2f} s, {size / seconds:.0f}/s")


@dataclass(frozen=True)
class Bench:
    """The product with its agent and its engine."""

    stack: Stack
    agent: Agent
    engine: Temporal

    async def single(self, size: int) -> float:
        """Seconds of so many single tasks, until the last has ended."""
        calls = await self.agent.calls() + size
        began = time.perf_counter()
        await submit(self.stack.url, [TASK] * size)
        while await self.agent.calls() < calls or await self._running():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(_POLL_SECONDS)
        return time.perf_counter() - began

    async def _running(self) -> int:
        open_ones = "WorkflowType = 'OrchestrateTask' AND ExecutionStatus = 'Running'"
        return (await self.engine.count_workflows(open_ones)).count

    async def batch(self, size: int) -> tuple[float, str]:
        """Seconds of one batch of so many tasks, and its id."""
        api = await Client.connect(self.stack.url)
        began = time.perf_counter()
        answer = await api.request("POST", "/orchestrate/batch", [TASK] * size)
        if "batch_id" not in answer:
            raise ValueError(f"a batch was not accepted: {answer}")
        batch_id = answer["batch_id"]
        while answer["status"] in {"queued", "running"}:
            answer = await api.request("GET", f"/batches/{batch_id}", headers=_WAIT)
        seconds = time.perf_counter() - began
        api.close()
        if answer.get("completed") != size:
            raise ValueError(f"a batch did not complete: {answer}")
        return seconds, batch_id

    async def bare(self, size: int) -> float:
        """Seconds of so many calls without an orchestrator."""
        url, left = self.agent.url + "/work", iter(range(size))
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def work() -> None:
                for _ in left:
                    async with session.post(url, json=PAYLOAD) as response:
                        await response.json()

            began = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
            return time.perf_counter() - began

    async def join(self, body: dict[str, Any], size: int) -> float:
        """Seconds until so many tasks are joined."""
        api = await Client.connect(self.stack.url)
        began = time.perf_counter()
        answer = await api.request("POST", "/aggregate", body, headers=_WAIT)
        while answer.get("status") == "running":
            aggregate = answer["aggregate_id"]
            answer = await api.request("GET", f"/aggregate/{aggregate}", headers=_WAIT)
        seconds = time.perf_counter() - began
        api.close()
        if answer.get("completed") != size:
            answer.pop("results", None)
            raise ValueError(f"not all were joined: {answer}")
        return seconds

    async def history(self, batch_id: str) -> dict[str, int]:
        """Events, bytes and runs of a batch, over all its parts and runs."""
        totals = {"events": 0, "bytes": 0, "runs": 0}
        for query in (f"WorkflowId = '{batch_id}'", f"WorkflowId STARTS_WITH '{batch_id}/'"):
            async for run in self.engine.list_workflows(query):
                handle = self.engine.get_workflow_handle(run.id, run_id=run.run_id)
                info = (await handle.describe()).raw_description.workflow_execution_info
                totals["events"] += info.history_length
                totals["bytes"] += info.history_size_bytes
                totals["runs"] += 1
        return totals


async def measure(size: int, rounds: int, joined: int) -> Found:
    """All that is measured, with batches of ``size`` and ten times ``size``."""
    with tempfile.TemporaryDirectory() as directory:
        async with (
            agent_process("--quiet") as agent,
            running(Path(directory), guarded_config(agent.url)) as stack,
        ):
            bench = Bench(stack, agent, await Temporal.connect(stack.engine))
            await _warm_up(bench)
            found = await _rounds(bench, size, rounds)
            await _joins(bench, found, joined)
            return found


async def _warm_up(bench: Bench) -> None:
    await bench.single(2 * CONNECTIONS)
    await bench.batch(2 * CONNECTIONS)
    await bench.bare(2 * CONNECTIONS)


async def _rounds(bench: Bench, size: int, rounds: int) -> Found:
    found, large = Found(), TIMES_LARGE * size
    for _ in range(rounds):
        calls = await bench.agent.calls()
        found.note("single", size, await bench.single(size))
        for _ in range(SHORT_TIMES):
            seconds, batch_id = await bench.batch(size)
            found.note("batch", size, seconds)
            found.note("bare", size, await bench.bare(size))
        seconds, large_id = await bench.batch(large)
        found.note("large", large, seconds)
        made = await bench.agent.calls() - calls
        if made != (1 + 2 * SHORT_TIMES) * size + large:
            raise ValueError(f"the agent had {made} calls, some tasks more than one or none")
    for kind, name, number in (("batch", batch_id, size), ("large", large_id, large)):
        found.histories[kind] = {
            key: value if key == "runs" else round(value / number, 3)
            for key, value in (await bench.history(name)).items()
        }
    return found


async def _joins(bench: Bench, found: Found, size: int) -> None:
    if not size:
        return
    _, batch_id = await bench.batch(size)
    ids = [item_id(batch_id, position) for position in range(size)]
    found.note("join", size, await bench.join({"task_ids": ids}, size))
    found.note("fan-out", size, await bench.join({"tasks": [TASK] * size}, size))


def summary(found: Found) -> dict[str, Any]:
    """Medians by kind, and the ratios of their rates with their goals."""
    kinds: dict[str, dict[str, Any]] = {
        kind: {
            "tasks": found.sizes[kind],
            "seconds": round(statistics.median(seconds), 3),
            "per_second": round(found.sizes[kind] / statistics.median(seconds)),
            "rounds": [round(each, 3) for each in seconds],
            **{f"history_{key}": value for key, value in found.histories.get(kind, {}).items()},
        }
        for kind, seconds in found.seconds.items()
    }
    ratios = {}
    for name, goal in GOALS.items():
        over, _, under = name.partition("_to_")
        ratio = kinds[over]["per_second"] / kinds[under]["per_second"]
        ratios[name] = {"ratio": round(ratio, 2), "goal": goal}
    return {"kinds": kinds, "ratios": ratios}


def show(rows: dict[str, Any]) -> None:
    """The tables for people."""
    table = Table(title="Many tasks, until the last has ended")
    headings = ("", "tasks", "seconds", "tasks/s", "events an item", "bytes an item", "runs")
    for heading in headings:
        table.add_column(heading, justify="right")
    names = ("tasks", "seconds", "per_second", "history_events", "history_bytes", "history_runs")
    for kind, row in rows["kinds"].items():
        table.add_row(kind, *(str(row.get(name, "")) for name in names))
    ratios = Table(title="Tasks a second, one against the other")
    for heading in ("", "ratio", "goal"):
        ratios.add_column(heading, justify="right")
    for name, row in rows["ratios"].items():
        ratios.add_row(name.replace("_", " "), str(row["ratio"]), f"at least {row['goal']}")
    Console().print(table, ratios)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m bench.batch --rounds 5 --json",
    )
    parser.add_argument("--tasks", type=int, default=1000, help="in a small batch, at most 1000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--join", type=int, default=5000, help="tasks to join; 0 for none")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    found = uvloop.run(measure(options.tasks, options.rounds, options.join))
    rows = summary(found)
    if options.json:
        print(json.dumps({"python": platform.python_version(), **rows}))
    else:
        show(rows)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
