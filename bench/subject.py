"""The common shape of all that is compared: hand in tasks, wait until their results are stored."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.client import Client

MOST_AT_ONCE = 200
"""Tasks that a subject can be asked to have handed in at a time."""
SAMPLE = 200
"""Tasks whose end is looked at, where each costs a request."""
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 120

Send = Callable[[], Awaitable[str]]
"""Hands in one task and returns its id."""


class MissingError(Exception):
    """What a subject needs is not on this machine."""


@dataclass(frozen=True)
class Place:
    """Where a subject runs: a folder of its own, and the URL of the agent that it is to call."""

    directory: Path
    agent: str


@dataclass(frozen=True)
class Order:
    """What to measure: so many tasks, handed in by so many at once.

    Args:
        mode: one of the subject's.
        tasks: how many.
        connections: how many are handed in at a time.
        path: what to call of the agent; it writes down when calls of ``/timed`` arrived.
    """

    mode: str
    tasks: int
    connections: int
    path: str = "/work"


@dataclass(frozen=True)
class Outcome:
    """What one order took.

    Args:
        seconds: from the first submission until the last result was stored.
        began_ns: when the first submission began, by the monotonic clock.
        submit_ms: of each submission, until it was accepted.
        began_sum_ns: of the times at which the submissions began, by the monotonic clock.
        end_ms: of tasks, all or a sample, from before the submission until the result was stored.
        events: of the engine's histories, in all.
        history_bytes: of the engine's histories, in all.
    """

    seconds: float
    began_ns: int
    submit_ms: list[float]
    began_sum_ns: int = 0
    end_ms: list[float] = field(default_factory=list)
    events: int | None = None
    history_bytes: int | None = None


class Subject(Protocol):
    """One of those compared, running."""

    durability: str
    """In words: what is stored, and what that survives."""
    versions: str
    """In words: of the programs and packages that it is made of."""

    async def run(self, order: Order) -> Outcome:
        """Hand in the tasks and wait until all their results are stored.

        Raises:
            MissingError: it has no such mode here.
        """
        ...

    def processes(self) -> Mapping[str, Sequence[int]]:
        """Its processes by kind, each with its children; the one that asks is left out."""
        ...

    async def stored_bytes(self) -> int | None:
        """What its database takes on disk; None where there is none."""
        ...


Opener = Callable[[Place], AbstractAsyncContextManager[Subject]]
"""Starts a subject, which runs for the time of the block; by convention ``opened`` of its module.

It raises ``MissingError`` where that cannot be.
"""


@dataclass
class Submissions:
    """The tasks that were accepted: when each submission began, by the wall clock, by id."""

    began_ns: int = 0
    began_sum_ns: int = 0
    began: dict[str, float] = field(default_factory=dict)
    submit_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def stored(self) -> None:
        """The last result is stored now."""
        self.seconds = (time.monotonic_ns() - self.began_ns) / 1e9

    def outcome(
        self,
        ends: Mapping[str, float],
        events: int | None = None,
        history_bytes: int | None = None,
    ) -> Outcome:
        """With the wall clock's times at which results were stored."""
        end_ms = [1000 * (end - self.began[name]) for name, end in ends.items()]
        return Outcome(
            self.seconds,
            self.began_ns,
            self.submit_ms,
            self.began_sum_ns,
            end_ms,
            events,
            history_bytes,
        )


async def submit(
    order: Order, connect: Callable[[], AbstractAsyncContextManager[Send]]
) -> Submissions:
    """Hand in the tasks of an order, each of its connections one at a time."""
    found, left = Submissions(), iter(range(order.tasks))
    async with AsyncExitStack() as stack:
        number = min(order.connections, order.tasks)
        sends = [await stack.enter_async_context(connect()) for _ in range(number)]
        found.began_ns = time.monotonic_ns()

        async def work(send: Send) -> None:
            for _ in left:
                wall, began = time.time(), time.monotonic_ns()
                name = await send()
                found.submit_ms.append((time.monotonic_ns() - began) / 1e6)
                found.began_sum_ns += began
                found.began[name] = wall

        await asyncio.gather(*map(work, sends))
    return found


@asynccontextmanager
async def posting(url: str, path: str, body: object, key: str) -> AsyncIterator[Send]:
    """A connection that posts the same body; ``key`` is where the answer has the task's id."""
    client = await Client.connect(url)

    async def send() -> str:
        answer = await client.request("POST", path, body)
        if key not in answer:
            raise ValueError(f"a task was not accepted: {answer}")
        return str(answer[key])

    try:
        yield send
    finally:
        client.close()


async def reached(count: Callable[[], Awaitable[int]], goal: int) -> None:
    """Wait until there are so many.

    Raises:
        TimeoutError: there are fewer after two minutes.
    """
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while await count() < goal:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(_POLL_SECONDS)
