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

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.progress import track
from rich.table import Table
from temporalio.client import Client

from tests.support.stack import Stack, agent_config, running

PAYLOAD = {"text": "a small payload", "number": 1}
GOALS = {"inline": 2.5, "queued": 5.0}
_IDLE_QUEUE = "bench-nobody"


class Agent:
    """An agent that notes when a call arrived."""

    def __init__(self) -> None:
        self.arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def work(self, _: web.Request) -> web.Response:
        """Answer at once."""
        if not self.arrived.done():
            self.arrived.set_result(time.perf_counter())
        return web.json_response({})


async def measure(rounds: int, warmup: int) -> dict[str, list[float]]:
    """Milliseconds by kind."""
    agent = Agent()
    app = web.Application()
    app.router.add_post("/work", agent.work)
    app.router.add_get("/health", agent.work)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    with tempfile.TemporaryDirectory() as directory:
        async with running(Path(directory), agent_config(f"http://{host}:{port}")) as stack:
            times = await _rounds(stack, agent, rounds, warmup)
    await runner.cleanup()
    return times


async def _rounds(stack: Stack, agent: Agent, rounds: int, warmup: int) -> dict[str, list[float]]:
    client = await Client.connect(stack.engine)
    times: dict[str, list[float]] = {"start": [], "inline": [], "queued": []}
    async with aiohttp.ClientSession() as session:
        for number in track(range(warmup + rounds), "Measuring", console=Console(stderr=True)):
            found = {
                "start": await _start(client),
                "inline": await _submit(session, stack, agent, "fast"),
                "queued": await _submit(session, stack, agent, "work"),
            }
            if number >= warmup:
                for kind, seconds in found.items():
                    times[kind].append(seconds * 1000)
    return times


async def _start(client: Client) -> float:
    began = time.perf_counter()
    handle = await client.start_workflow(
        "Nobody", PAYLOAD, id=str(uuid.uuid4()), task_queue=_IDLE_QUEUE
    )
    seconds = time.perf_counter() - began
    await handle.terminate()
    return seconds


async def _submit(session: aiohttp.ClientSession, stack: Stack, agent: Agent, name: str) -> float:
    agent.arrived = asyncio.get_running_loop().create_future()
    began = time.perf_counter()
    request = {"pattern": name, "payload": PAYLOAD}
    async with session.post(f"{stack.url}/orchestrate", json=request) as response:
        answer = await response.json()
    seconds = await agent.arrived - began
    # The next round begins when this task has ended.
    headers = {"Prefer": "wait=30"}
    async with session.get(f"{stack.url}/status/{answer['task_id']}", headers=headers) as response:
        await response.read()
    return seconds


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
