"""The numbers that only the engine knows, kept fresh beside the requests that show them."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator.dead_letters import DeadLetterFilter
from orchestrator.engine.batch_lists import OpenBatches
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.queues import QueueState, describe_queues
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import EngineUnavailable
from orchestrator.models import TaskState
from orchestrator.telemetry.logging import get_logger

REFRESH_SECONDS = 1.0
QUEUES_A_SECOND = 100
"""How many agents' queues the engine is asked about at most, which takes a tenth of a core."""
RENEW_SECONDS = 0.2
"""Those who cannot wait for the next refresh have the engine asked at most this often."""
IDLE_SECONDS = 120.0
"""Nobody asked for so long, which is longer than Prometheus pauses: no need to ask the engine."""

COUNT_SECONDS = 2.0
"""How old the counts of tasks are before they are made anew, at least."""
COUNT_SHARE = 0.05
"""Of the time that counting may take: for each count the engine goes through all that it keeps.

Seen were 15 ms of its CPU for 4,000 tasks, and it does nothing else meanwhile.
"""

log = get_logger(__name__)


@dataclass(frozen=True)
class Counts:
    """How many tasks the engine keeps, by state, and how many of those are dead letters.

    They are made anew when they are ``due``, by the monotonic clock.
    """

    tasks: Mapping[TaskState, int] = field(default_factory=lambda: dict.fromkeys(TaskState, 0))
    dead_letters: int = 0
    due: float = float("-inf")

    @property
    def is_known(self) -> bool:
        """Whether they were ever made."""
        return self.due > float("-inf")


@dataclass(frozen=True)
class Snapshot:
    """What the engine said last; ``reachable`` is False when it did not answer.

    ``as_of`` is when it was asked for these numbers, by the monotonic clock; ``counts`` may be
    older.
    """

    reachable: bool = False
    as_of: float = float("-inf")
    queues: Mapping[str, QueueState] = field(default_factory=dict)
    batches: OpenBatches = field(default_factory=OpenBatches)
    counts: Counts = field(default_factory=Counts)

    @property
    def active(self) -> int:
        """Tasks that have not ended; an item that is a task of its own counts as both."""
        tasks = self.counts.tasks
        return tasks[TaskState.RUNNING] + tasks[TaskState.QUEUED] + self.batches.pending

    @property
    def has_workers(self) -> bool:
        """Whether somebody takes the calls of every agent."""
        return all(queue.has_worker for queue in self.queues.values())

    @cached_property
    def waiting(self) -> int:
        """What counts against the bounded queue.

        Waiting calls of all agents; a coalesced task counts until it has ended.
        """
        return self.backlog.total() + self.batches.coalesced.pending

    @property
    def backlog(self) -> Counter[int]:
        """Waiting calls by priority."""
        total: Counter[int] = Counter()
        for queue in self.queues.values():
            total.update(queue.backlog)
        return total


def refresh_seconds(agents: int) -> float:
    """The pause between two looks at so many agents' queues."""
    return max(REFRESH_SECONDS, agents / QUEUES_A_SECOND)


class Overview:
    """Refreshes a snapshot while anybody looks; reading it costs no engine call.

    Once a second, or with more than a hundred agents more seldom; the counts in it while somebody
    looks at those, and the more seldom the longer they take.
    """

    def __init__(self, client: Client, tasks: Tasks, agents: Sequence[str], timeout: float) -> None:
        self._client = client
        self._tasks = tasks
        self.configure(agents)
        self._timeout = timedelta(seconds=timeout)
        self._dead_letters = DeadLetters(client, timeout)
        self._snapshot = Snapshot()
        self._asked_at = self._counts_asked_at = time.monotonic()
        self._refreshed_at = float("-inf")
        self._refreshing = asyncio.Lock()

    def configure(self, agents: Sequence[str]) -> None:
        """Look at these agents' queues from now on."""
        self._agents = agents
        self._pause = refresh_seconds(len(agents))

    async def get(self) -> Snapshot:
        """The last snapshot; asks the engine itself only after nobody had asked for a while."""
        self._asked_at = self._counts_asked_at = time.monotonic()
        if self._is_stale():
            async with self._refreshing:
                if self._is_stale():
                    await self._refresh()
        return self._snapshot

    @property
    def last(self) -> Snapshot:
        """The last snapshot, for those that cannot wait and need no counts."""
        self._asked_at = time.monotonic()
        return self._snapshot

    @property
    def last_counted(self) -> Snapshot:
        """The last snapshot, for those that cannot wait; safe from any thread."""
        self._counts_asked_at = time.monotonic()
        return self.last

    async def renew(self) -> Snapshot:
        """A snapshot that was asked for after this call; who comes meanwhile shares it.

        An engine that does not answer is not waited for again, and no count at all.
        """
        self._asked_at = wanted = time.monotonic()
        async with self._refreshing:
            last = self._snapshot
            if last.as_of < wanted and (last.reachable or self._refreshed_at == float("-inf")):
                pause = last.as_of + RENEW_SECONDS - time.monotonic()
                await asyncio.sleep(max(0.0, pause))
                await self._refresh(counting=False)
        return self._snapshot

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            now = time.monotonic()
            if now - self._asked_at < IDLE_SECONDS:
                async with self._refreshing:
                    await self._refresh(counting=now - self._counts_asked_at < IDLE_SECONDS)
            await asyncio.sleep(self._pause)

    def _is_stale(self) -> bool:
        known = self._refreshed_at
        if self._snapshot.reachable:
            known = min(known, self._snapshot.counts.due)
        return time.monotonic() - known > 2 * self._pause + self._timeout.total_seconds()

    async def _refresh(self, *, counting: bool = True) -> None:
        self._snapshot = await self._ask(counting=counting)
        self._refreshed_at = time.monotonic()

    async def _ask(self, *, counting: bool) -> Snapshot:
        last, now = self._snapshot, time.monotonic()
        try:
            async with engine_call(self._timeout):
                queues, batches, counts = await asyncio.gather(
                    describe_queues(self._client, self._agents, self._timeout),
                    self._tasks.batches.lists.open(),
                    self._count(last.counts, now, counting=counting),
                )
        except (EngineUnavailable, RPCError) as error:
            if last.reachable:
                log.warning("engine_unreachable", error=str(error))
            return replace(last, reachable=False)
        return Snapshot(True, now, queues, batches, counts)

    async def _count(self, last: Counts, now: float, *, counting: bool) -> Counts:
        """The counts; made anew if they are due, where that is wanted."""
        if not counting or now < last.due:
            return last
        tasks, dead_letters = await asyncio.gather(
            self._tasks.counts(), self._dead_letters.count(DeadLetterFilter())
        )
        took = time.monotonic() - now
        return Counts(tasks, dead_letters, now + max(COUNT_SECONDS, took / COUNT_SHARE))
