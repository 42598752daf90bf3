"""How long after a submission the agent receives the call, against the engine's bare start call.

Everything is measured in one run on one engine, one task at a time, the three in turn:

- ``start``: the engine's StartWorkflowExecution call alone, from the SDK's client;
- ``inline`` and ``queued``: from before POST /orchestrate until the agent has the request.

The ratios of the medians are what counts; absolute times depend on the machine.
"""

import argparse
import asyncio
import json
import math
import platform
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from temporalio.client import Client as Temporal

from bench.client import Client
from bench.stage import PAYLOAD, Agent, agent_process
from tests.support.stack import Stack, agent_config, running

GOALS = {"inline": 2.5, "queued": 5.0}
_IDLE_QUEUE = "bench-nobody"


async def measure(rounds: int, warmup: int) -> dict[str, list[float]]:
    """Milliseconds by kind."""
    with tempfile.TemporaryDirectory() as directory:
        async with (
            agent_process() as agent,
            running(Path(directory), agent_config(agent.url)) as stack,
        ):
            return await _rounds(stack, agent, rounds, warmup)


async def _rounds(stack: Stack, agent: Agent, rounds: int, warmup: int) -> dict[str, list[float]]:
    engine = await Temporal.connect(stack.engine)
    api = await Client.connect(stack.url)
    times: dict[str, list[float]] = {"start": [], "inline": [], "queued": []}
    for number in track(range(warmup + rounds), "Measuring", console=Console(stderr=True)):
        found = {
            "start": await _start(engine),
            "inline": await _submit(api, agent, "fast"),
            "queued": await _submit(api, agent, "work"),
        }
        if number >= warmup:
            for kind, nanoseconds in found.items():
                times[kind].append(nanoseconds / 1e6)
    api.close()
    return times


async def _start(engine: Temporal) -> int:
    began = time.monotonic_ns()
    handle = await engine.start_workflow(
        "Nobody", PAYLOAD, id=str(uuid.uuid4()), task_queue=_IDLE_QUEUE
    )
    nanoseconds = time.monotonic_ns() - began
    await handle.terminate()
    return nanoseconds


async def _submit(api: Client, agent: Agent, pattern: str) -> int:
    began = time.monotonic_ns()
    task = await api.request("POST", "/orchestrate", {"pattern": pattern, "payload": PAYLOAD})
    nanoseconds = await agent.arrival() - began
    # The next round begins when this task has ended.
    await api.request("GET", f"/status/{task['task_id']}", headers="Prefer: wait=30\r\n")
    return nanoseconds


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Percentiles of each kind and its ratio to the bare start."""
    base = statistics.median(times["start"])
    rows = {}
    for kind, values in times.items():
        ordered = sorted(values)
        rows[kind] = {
            "p50_ms": round(statistics.median(ordered), 2),
            "p95_ms": round(ordered[math.ceil(0.95 * len(ordered)) - 1], 2),
            "min_ms": round(ordered[0], 2),
            "ratio_to_start": round(statistics.median(ordered) / base, 2),
            "goal": GOALS.get(kind),
        }
    return rows


def show(rows: dict[str, Any]) -> None:
    """The table for people."""
    table = Table(title="From submission to the agent, one task at a time")
    for heading in ("", "p50 ms", "p95 ms", "min ms", "x bare start", "goal"):
        table.add_column(heading, justify="right")
    for kind, row in rows.items():
        goal = f"at most {row['goal']}" if row["goal"] else ""
        cells = (row["p50_ms"], row["p95_ms"], row["min_ms"], row["ratio_to_start"], goal)
        table.add_row(kind, *map(str, cells))
    Console().print(table)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m bench.dispatch --rounds 300 --json",
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = summary(asyncio.run(measure(options.rounds, options.warmup)))
    if options.json:
        print(json.dumps({"python": platform.python_version(), "rounds": options.rounds, **rows}))
    else:
        show(rows)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
