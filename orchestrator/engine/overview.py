"""What waits, as only the engine knows, kept fresh beside the requests that ask for it."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator.engine.batch_lists import BatchLists, OpenBatches
from orchestrator.engine.queues import QueueState, describe_queues
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import EngineUnavailable
from orchestrator.telemetry.logging import get_logger

REFRESH_SECONDS = 1.0
QUEUES_A_SECOND = 100
"""How many agents' queues the engine is asked about at most, which takes a tenth of a core."""
RENEW_SECONDS = 0.2
"""Those who cannot wait for the next refresh have the engine asked at most this often."""
IDLE_SECONDS = 120.0
"""Nobody asked for so long, which is longer than Prometheus pauses: no need to ask the engine."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """What the engine said last; ``reachable`` is False when it did not answer.

    ``as_of`` is when it was asked for these numbers, by the monotonic clock.
    """

    reachable: bool = False
    as_of: float = float("-inf")
    queues: Mapping[str, QueueState] = field(default_factory=dict)
    batches: OpenBatches = field(default_factory=OpenBatches)

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

    Once a second, or with more than a hundred agents more seldom.
    """

    def __init__(
        self, client: Client, batches: BatchLists, agents: Sequence[str], timeout: float
    ) -> None:
        self._client = client
        self._batches = batches
        self.configure(agents)
        self._timeout = timedelta(seconds=timeout)
        self._snapshot = Snapshot()
        self._asked_at = time.monotonic()
        self._refreshed_at = float("-inf")
        self._refreshing = asyncio.Lock()

    def configure(self, agents: Sequence[str]) -> None:
        """Look at these agents' queues from now on."""
        self._agents = agents
        self._pause = refresh_seconds(len(agents))

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

    async def renew(self) -> Snapshot:
        """A snapshot that was asked for after this call; who comes meanwhile shares it.

        An engine that does not answer is not waited for again.
        """
        self._asked_at = wanted = time.monotonic()
        async with self._refreshing:
            last = self._snapshot
            if last.as_of < wanted and (last.reachable or self._refreshed_at == float("-inf")):
                pause = last.as_of + RENEW_SECONDS - time.monotonic()
                await asyncio.sleep(max(0.0, pause))
                await self._refresh()
        return self._snapshot

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            if time.monotonic() - self._asked_at < IDLE_SECONDS:
                async with self._refreshing:
                    await self._refresh()
            await asyncio.sleep(self._pause)

    def _is_stale(self) -> bool:
        longest = 2 * self._pause + self._timeout.total_seconds()
        return time.monotonic() - self._refreshed_at > longest

    async def _refresh(self) -> None:
        self._snapshot = await self._ask()
        self._refreshed_at = time.monotonic()

    async def _ask(self) -> Snapshot:
        last, now = self._snapshot, time.monotonic()
        try:
            async with engine_call(self._timeout):
                queues, batches = await asyncio.gather(
                    describe_queues(self._client, self._agents, self._timeout),
                    self._batches.open(),
                )
        except (EngineUnavailable, RPCError) as error:
            if last.reachable:
                log.warning("engine_unreachable", error=str(error))
            return replace(last, reachable=False)
        return Snapshot(True, now, queues, batches)
