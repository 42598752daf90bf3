"""The numbers that only the engine knows, kept fresh beside the requests that show them."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator.engine.queues import QueueState, describe_queues
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import EngineUnavailable
from orchestrator.models import TaskState
from orchestrator.telemetry.logging import get_logger

REFRESH_SECONDS = 1.0
IDLE_SECONDS = 120.0
"""Nobody asked for so long, which is longer than Prometheus pauses: no need to ask the engine."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """What the engine said last; ``reachable`` is False when it did not answer."""

    reachable: bool = False
    counts: Mapping[TaskState, int] = field(default_factory=lambda: dict.fromkeys(TaskState, 0))
    queues: Mapping[str, QueueState] = field(default_factory=dict)

    @property
    def active(self) -> int:
        """Tasks that have not ended."""
        return self.counts[TaskState.RUNNING] + self.counts[TaskState.QUEUED]

    @property
    def has_workers(self) -> bool:
        """Whether somebody takes the calls of every agent."""
        return all(queue.has_worker for queue in self.queues.values())

    @property
    def backlog(self) -> Counter[int]:
        """Waiting calls by priority."""
        total: Counter[int] = Counter()
        for queue in self.queues.values():
            total.update(queue.backlog)
        return total


class Overview:
    """Refreshes a snapshot once a second while anybody looks; reading it costs no engine call."""

    def __init__(self, client: Client, tasks: Tasks, agents: Sequence[str], timeout: float) -> None:
        self._client = client
        self._tasks = tasks
        self._agents = agents
        self._timeout = timedelta(seconds=timeout)
        self._snapshot = Snapshot()
        self._asked_at = time.monotonic()
        self._refreshed_at = float("-inf")
        self._refreshing = asyncio.Lock()

    async def get(self) -> Snapshot:
        """The last snapshot; asks the engine itself only after nobody had asked for a while."""
        self._asked_at = time.monotonic()
        if self._is_stale():
            async with self._refreshing:
                if self._is_stale():
                    await self._refresh()
        return self._snapshot

    @property
    def last(self) -> Snapshot:
        """The last snapshot, for those that cannot wait; safe from any thread."""
        self._asked_at = time.monotonic()
        return self._snapshot

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            if time.monotonic() - self._asked_at < IDLE_SECONDS:
                async with self._refreshing:
                    await self._refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    def _is_stale(self) -> bool:
        longest = 2 * REFRESH_SECONDS + self._timeout.total_seconds()
        return time.monotonic() - self._refreshed_at > longest

    async def _refresh(self) -> None:
        self._snapshot = await self._ask()
        self._refreshed_at = time.monotonic()

    async def _ask(self) -> Snapshot:
        try:
            async with engine_call(self._timeout):
                counts, queues = await asyncio.gather(
                    self._tasks.counts(),
                    describe_queues(self._client, self._agents, self._timeout),
                )
        except (EngineUnavailable, RPCError) as error:
            if self._snapshot.reachable:
                log.warning("engine_unreachable", error=str(error))
            return Snapshot(counts=self._snapshot.counts, queues=self._snapshot.queues)
        return Snapshot(reachable=True, counts=counts, queues=queues)
