"""A rolling restart under load: every API and worker is stopped and started, one after the other.

Two APIs and two workers; tasks keep coming, of all three ways to dispatch, most of them coalesced,
and some of their calls take seconds. What is counted:

- requests that failed, but for those that any client may send again: the connection was refused, or
  the answer was 429 or 503 with Retry-After; or it broke before an answer, and the request can be
  repeated: a GET, or a POST with an Idempotency-Key, as the queued and inline ones have. Those of
  coalesced tasks have none, since each with a key would be a workflow of its own;
- tasks that did not complete, and calls beyond the first of each task, as the agent counts them by
  the number in their payload.

    python -m bench.rolling --seconds 120 --rate 50
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import aiohttp

from tests.support.agents import Agent, Call, Reply
from tests.support.stack import Stack, eventually, free_port, running

DISPATCHES = ("queued", "inline", "coalesced")
# As many single tasks as two cores carry beside the restarts; most are coalesced.
PATTERNS = ("queued", "inline", *("coalesced",) * 8)
DELAYS = (0.0, 0.02, 0.1, 0.5)
LONG_EVERY, LONG_SECONDS = 47, 4.0
RETRY_FOR_SECONDS = 60.0
READY_SECONDS = 120.0
_AGAIN = {429, 503}


@dataclass
class Found:
    """What a run found; ``failed``, ``lost`` and ``doubled`` have to be empty."""

    tasks: int = 0
    requests: int = 0
    seconds: float = 0.0
    restarts: list[str] = field(default_factory=list)
    sent_again: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    doubled: dict[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or refused for good, while everything was restarted."""
        return bool(self.tasks and self.restarts) and not (self.failed or self.lost or self.doubled)


class Part(Protocol):
    """An API or a worker."""

    @property
    def name(self) -> str:
        """How the report calls it."""

    async def restart(self) -> None:
        """Stop it politely, start it again, and wait until it is ready."""


@dataclass
class Supervised:
    """One of `orchestrator run`, which starts it again by itself."""

    stack: Stack
    kind: str

    @property
    def name(self) -> str:
        """How the report calls it."""
        return f"{self.kind} 1"

    async def restart(self) -> None:
        """As Part.restart."""
        seen = self._times_ready()
        os.kill(self.stack.pid_of(self.kind), signal.SIGTERM)

        async def ready() -> bool:
            return self._times_ready() > seen

        await eventually(ready, READY_SECONDS, f"{self.name} again")

    def _times_ready(self) -> int:
        return self.stack.said().count(f'"event":"{self.kind}_ready"')


@dataclass
class Joined:
    """One that was started beside it, at a port of its own."""

    stack: Stack
    kind: str
    port: int = field(default_factory=free_port)
    life: AsyncExitStack = field(default_factory=AsyncExitStack)
    process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        """How the report calls it."""
        return f"{self.kind} 2"

    @property
    def url(self) -> str:
        """Of an API."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        log = self.stack.directory / f"{self.kind}-{self.port}.log"
        seen = _times(log, f'"event":"{self.kind}_ready"')
        process = await self.life.enter_async_context(self.stack.joined(self.kind, self.port))
        self.process = process

        async def ready() -> bool:
            if process.returncode is not None:
                raise RuntimeError(f"{self.name} does not start:\n{log.read_text()[-2000:]}")
            return _times(log, f'"event":"{self.kind}_ready"') > seen

        await eventually(ready, READY_SECONDS, self.name)

    async def stop(self) -> None:
        """Stop it politely; raises where it does not leave as it should."""
        await self.life.aclose()
        if self.process is not None and self.process.returncode != 0:
            raise RuntimeError(f"{self.name} left with {self.process.returncode}")

    async def restart(self) -> None:
        """As Part.restart."""
        await self.stop()
        await self.start()


def _times(log: Path, text: str) -> int:
    return log.read_text().count(text) if log.exists() else 0


@dataclass
class Caller:
    """Sends requests to either API, and again where any client would."""

    urls: Sequence[str]
    session: aiohttp.ClientSession
    found: Found
    _turns: "count[int]" = field(default_factory=count)

    async def task(self, number: int) -> None:
        """Submit one task, and wait for its end."""
        long = number % LONG_EVERY == LONG_EVERY - 1
        delay = LONG_SECONDS if long else DELAYS[number % len(DELAYS)]
        pattern = PATTERNS[number % len(PATTERNS)]
        body = {"pattern": pattern, "payload": {"number": number, "delay": delay}}
        headers = {} if pattern == "coalesced" else {"Idempotency-Key": str(uuid.uuid4())}
        self.found.tasks += 1
        status = await self._request("POST", "/orchestrate", headers, body)
        while status is not None and status["status"] in {"queued", "running"}:
            path = f"/status/{status['task_id']}"
            status = await self._request("GET", path, {"Prefer": "wait=5"})
        if status is None or status["status"] != "completed":
            self.found.lost.append(f"{pattern}: {status}")

    async def _request(
        self, method: str, path: str, headers: dict[str, str], body: object = None
    ) -> dict[str, Any] | None:
        """The answer; None where the request failed for good."""
        end = time.monotonic() + RETRY_FOR_SECONDS
        problem, turn = "", next(self._turns)
        while time.monotonic() < end:
            # First to the next API, and then to the other in turn.
            turn, url = turn + 1, self.urls[turn % len(self.urls)]
            self.found.requests += 1
            try:
                async with self.session.request(
                    method, url + path, json=body, headers=headers
                ) as response:
                    again = response.status in _AGAIN and "Retry-After" in response.headers
                    answer: dict[str, Any] = await response.json(content_type=None)
            except aiohttp.ClientConnectorError as error:
                problem = type(error).__name__
            except aiohttp.ClientConnectionError as error:
                problem = type(error).__name__
                if method == "POST" and "Idempotency-Key" not in headers:
                    break
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                self.found.failed.append(f"{method} {path}: {error!r}")
                return None
            else:
                if response.ok:
                    return answer
                problem = f"{response.status} {answer.get('detail')}"
                if not again:
                    break
            self.found.sent_again[problem] += 1
            await asyncio.sleep(0.1)
        self.found.failed.append(f"{method} {path}: {problem}")
        return None


def config(url: str) -> dict[str, Any]:
    """One agent, which a rule for each way to dispatch calls."""
    rules = [
        {"pattern": each, "target_agent": "steady", "endpoint": "/work", "dispatch": each}
        for each in DISPATCHES
    ]
    return {
        "agents": {"steady": {"instances": [{"url": url}], "max_connections": 200}},
        "routing_rules": rules,
    }


def answer(call: Call) -> Reply:
    """As slow as the task asks for."""
    return Reply(delay=(call.body or {}).get("delay", 0))


@asynccontextmanager
async def doubled(directory: Path, agent: Agent) -> AsyncIterator[tuple[Stack, list[Part]]]:
    """Two APIs and two workers, in the order in which they are restarted."""
    async with running(directory, config(agent.url)) as stack:
        joined = [Joined(stack, "api"), Joined(stack, "worker")]
        try:
            await asyncio.gather(*(each.start() for each in joined))
            yield (
                stack,
                [Supervised(stack, "api"), joined[0], Supervised(stack, "worker"), joined[1]],
            )
        finally:
            await asyncio.gather(*(each.stop() for each in joined))


async def roll(
    stack: Stack, parts: Sequence[Part], agent: Agent, rate: float, seconds: float
) -> Found:
    """Restart the parts again and again while tasks come, and at least once each.

    Args:
        stack: whose first API is called, and the second one that is among the parts.
        parts: what is restarted, in this order.
        agent: what the tasks call.
        rate: tasks a second.
        seconds: how long.
    """
    found, began = Found(), time.monotonic()
    urls = [
        stack.url,
        *(each.url for each in parts if isinstance(each, Joined) and each.kind == "api"),
    ]
    timeout = aiohttp.ClientTimeout(total=RETRY_FOR_SECONDS)
    # Those that wait at one API must not keep others from the next.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        caller, tasks = Caller(urls, session, found), set[asyncio.Task[None]]()
        rolling = asyncio.create_task(_restart_all(parts, found, began + seconds))
        for number in count():
            if rolling.done() and time.monotonic() >= began + seconds:
                break
            tasks.add(asyncio.create_task(caller.task(number)))
            await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))
        await rolling
        found.seconds = round(time.monotonic() - began, 1)
        await asyncio.gather(*tasks)
    calls = Counter((each.body or {}).get("number") for each in agent.work())
    found.doubled = {str(number): times for number, times in calls.items() if times != 1}
    if len(calls) != found.tasks:
        found.lost.append(f"{found.tasks} tasks, of which the agent has seen {len(calls)}")
    return found


async def _restart_all(parts: Sequence[Part], found: Found, end: float) -> None:
    for number, part in enumerate(cycle(parts)):
        if number >= len(parts) and time.monotonic() >= end:
            return
        began = time.monotonic()
        await part.restart()
        found.restarts.append(f"{part.name}, {time.monotonic() - began:.1f} s")


async def main(rate: float, seconds: float) -> Found:
    """A whole run."""
    with TemporaryDirectory() as directory:
        async with Agent(decide=answer) as agent, doubled(Path(directory), agent) as (stack, parts):
            return await roll(stack, parts, agent, rate, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=50, help="tasks a second (50)")
    parser.add_argument("--seconds", type=float, default=120, help="how long (120)")
    given = parser.parse_args()
    result = asyncio.run(main(given.rate, given.seconds))
    print(json.dumps({**vars(result), "holds": result.holds}, indent=2))
    sys.exit(not result.holds)
