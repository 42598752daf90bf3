"""What tasks cost that wait for late answers, and that all of them outlive a restart of everything.

An agent with ten slots takes 2,000 calls with 202, and then more. While they wait, memory is read
at rest, as in bench.memory. Then engine, worker and API are stopped and started, and every answer
is posted. Beside that stands

- what the processes need when they are started while all of them wait, and when none does: what
  waiting costs is the difference;
- what as many tasks leave behind in a product of its own that were answered at once: what a process
  keeps of its work, waiting or not.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.client import Client
from bench.memory import WARM_UP, read, rest, summary
from bench.stage import PAYLOAD, submit
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import Stack, agent_config, eventually, running

SLOTS = 10
AT_ONCE = 20
SECONDS = 600.0


def config_of(url: str) -> dict[str, Any]:
    """Rules for work that is done at once and for work that is answered later."""
    config = agent_config(url, timeout=60)
    config["agents"]["test_agent"]["max_connections"] = SLOTS
    rule = {"pattern": "late", "target_agent": "test_agent", "endpoint": "/late"}
    config["routing_rules"].append(rule)
    # A machine that others use too may be slow; that is not what is measured here.
    config["temporal"] = {"rpc_timeout": 30}
    return config


async def measure(steps: Sequence[int]) -> dict[str, Any]:
    """Bytes a waiting task, how long another took meanwhile, and how the tasks ended."""
    with tempfile.TemporaryDirectory() as directory:
        async with Agent() as agent, running(Path(directory), config_of(agent.url)) as stack:
            readings = await read(stack, "late, started anew", 0)
            await _warm_up(stack, agent)
            readings += await read(stack, "late", 0)
            calls: list[Call] = []
            for step in steps:
                more = [{"pattern": "late", "payload": PAYLOAD}] * (step - len(calls))
                await submit(stack.url, more)
                calls = (await _taken(agent, WARM_UP + step))[WARM_UP:]
                readings += await read(stack, "late", step)
            began = time.perf_counter()
            client = await Client.connect(stack.url)
            body = {"pattern": "work", "payload": PAYLOAD}
            other = await client.request(
                "POST", "/orchestrate", body, headers="Prefer: wait=30\r\n"
            )
            client.close()
            seconds = time.perf_counter() - began
            await stack.stop()
            await stack.start()
            readings += await read(stack, "late, started anew", steps[-1])
            ended = await _answer(stack, calls)
            return {
                "memory": summary(readings),
                "slots": SLOTS,
                "other_task": {"status": other["status"], "seconds": round(seconds, 3)},
                "answered_after_restart": ended,
            }


async def measure_answered(steps: Sequence[int]) -> list[dict[str, Any]]:
    """Bytes that a task leaves behind which was answered at once."""
    with tempfile.TemporaryDirectory() as directory:
        async with Agent() as agent, running(Path(directory), config_of(agent.url)) as stack:
            await _warm_up(stack, agent)
            readings = await read(stack, "answered", 0)
            done = 0
            for step in steps:
                await submit(stack.url, [{"pattern": "work", "payload": PAYLOAD}] * (step - done))
                done = step
                readings += await read(stack, "answered", step)
            return summary(readings)


async def _warm_up(stack: Stack, agent: Agent) -> None:
    """What the first tasks make a process load and keep is not one task's."""
    agent.behave(lambda call: Reply(status=202 if call.path == "/late" else 200))
    await submit(stack.url, [{"pattern": "work", "payload": PAYLOAD}] * WARM_UP)
    await rest(stack)
    await submit(stack.url, [{"pattern": "late", "payload": PAYLOAD}] * WARM_UP)
    await _answer(stack, await _taken(agent, WARM_UP))


async def _taken(agent: Agent, number: int) -> list[Call]:
    """The calls, once the agent has taken them all."""

    async def all_taken() -> list[Call] | None:
        calls = [each for each in agent.calls if each.path == "/late"]
        return calls if len(calls) >= number else None

    calls: list[Call] = await eventually(all_taken, SECONDS, "all calls")
    return calls


async def _answer(stack: Stack, calls: Sequence[Call]) -> dict[str, int]:
    """Post every answer; how many tasks ended how."""
    turn = asyncio.Semaphore(AT_ONCE)
    async with stack.client() as client:

        async def end(call: Call) -> str:
            async with turn:
                await _post(client, call.headers["X-Completion-URL"])
                path = f"/status/{call.headers['X-Task-ID']}"
                status = (await client.get(path, headers={"Prefer": "wait=60"})).json()
                return str(status["status"])

        return dict(Counter(await asyncio.gather(*map(end, calls))))


async def _post(client: httpx.AsyncClient, url: str) -> None:
    async def posted() -> bool:
        return (await client.post(url, json={"result": "done"})).status_code == httpx.codes.OK

    await eventually(posted, SECONDS, "200")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m bench.late --tasks 2000,6000",
    )
    parser.add_argument("--tasks", default="2000,6000", help="how many wait, step by step")
    steps = [int(each) for each in parser.parse_args().tasks.split(",")]
    found = asyncio.run(measure(steps))
    found["memory_of_answered"] = asyncio.run(measure_answered(steps))
    print(json.dumps(found, indent=2))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
