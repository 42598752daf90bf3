"""The activity run_chunk outside the engine, with real pools, transport and HTTP."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.chunk_means import Means
from activities.run_chunk import ChunkCalls
from orchestrator.batches import UNWANTED, Chunk, ChunkReport, ItemOutcome, Unwanted
from orchestrator.buckets import Buckets
from orchestrator.config import Settings
from orchestrator.limits import RateLimits
from orchestrator.messaging.outbox import Outbox
from orchestrator.resilience.balancer import RoundRobin
from orchestrator.resilience.member import PoolPolicy
from orchestrator.resilience.pool import Pool, Pools
from orchestrator.transports.http import HttpTransport
from tests.activities.stage import PATIENT
from tests.support.plans import AGENT, plan

BATCH = "7a1c9f62-3b54-8d0e-9c11-2f6a5b1e0000"
MAX_RESULT_BYTES = 2_000_000


def chunk(count: int, *, first: int = 0, **fields: Any) -> Chunk:
    """So many items, whose payloads are their positions; a plan is given by its changes."""
    planned = {name: fields.pop(name) for name in list(fields) if name not in Chunk.model_fields}
    positions = tuple(range(first, first + count))
    defaults = {
        "batch_id": BATCH,
        "plan": plan(**planned),
        "positions": positions,
        "items": tuple(f'{{"pattern":"read","payload":{{"n":{n}}}}}' for n in positions),
        "created_at": datetime.now(UTC),
    }
    return Chunk.model_validate(defaults | fields)


class Wishes:
    """Stands for the workflow of the batch, which says what is unwanted; None if it is away."""

    def __init__(self) -> None:
        self.unwanted: Unwanted | None = Unwanted(everything=True)
        self.asked = 0

    def get_workflow_handle(self, *_: Any, **__: Any) -> "Wishes":
        """It is the only one."""
        return self

    async def query(self, name: str, positions: list[int], **_: Any) -> Unwanted:
        """As the client's handle does."""
        assert UNWANTED == name
        self.asked += 1
        if self.unwanted is None:
            raise RPCError("away", RPCStatusCode.DEADLINE_EXCEEDED, b"")
        named = tuple(each for each in self.unwanted.positions if each in positions)
        return self.unwanted.model_copy(update={"positions": named})


class Chunker:
    """Runs chunks as a worker would, each in the slot and in an environment of its own."""

    def __init__(
        self, chunks: ChunkCalls, pool: Pool, buckets: Buckets, limits: RateLimits
    ) -> None:
        self._chunks = chunks
        self.pool = pool
        self.buckets = buckets
        self.limits = limits
        self.wishes = Wishes()
        self.told: list[ChunkReport] = []
        """What the heartbeats told."""

    def environment(
        self, dispatch: int = 1, after: ChunkReport | None = None
    ) -> ActivityEnvironment:
        """The environment of a dispatch, by the engine's count; ``after`` is the last heartbeat."""
        environment = ActivityEnvironment(cast("Client", self.wishes))
        environment.on_heartbeat = self.told.append
        now = datetime.now(UTC)
        environment.info = replace(
            environment.info,
            attempt=dispatch,
            start_to_close_timeout=timedelta(minutes=1),
            scheduled_time=now,
            current_attempt_scheduled_time=now,
            started_time=now,
            # The engine hands it on as JSON, of which nobody said what it is.
            heartbeat_details=[after.model_dump(mode="json")] if after else [],
        )
        return environment

    async def run(self, given: Chunk, dispatch: int = 1, after: ChunkReport | None = None) -> Any:
        """The report of a chunk."""
        return await self.run_in(self.environment(dispatch, after), given)

    async def run_in(self, environment: ActivityEnvironment, given: Chunk) -> ChunkReport:
        """The same in an environment that the test keeps."""
        # The worker has it already when the work comes, and perhaps since before a breaker opened.
        self.pool.slots.used += 1
        try:
            return await environment.run(self._chunks.run_chunk, given)
        finally:
            self.pool.slots.give_back()

    async def refusal(self, given: Chunk, **dispatch: Any) -> ApplicationError:
        """The failure of a chunk of which nothing can be begun."""
        with pytest.raises(ApplicationError) as caught:
            await self.run(given, **dispatch)
        return caught.value


@asynccontextmanager
async def chunking(
    *urls: str,
    policy: PoolPolicy = PATIENT,
    rate: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    chance: float = 0.5,
    grace_seconds: float = 30,
    outbox: Outbox | None = None,
) -> AsyncIterator[Chunker]:
    """Chunks of the tests' agent, which has an instance at each URL, and perhaps a rate limit."""
    transport = HttpTransport(MAX_RESULT_BYTES)
    pool = Pool(AGENT, [(url, 1) for url in urls], RoundRobin(), policy)
    agent = {"instances": [{"url": url} for url in urls]} | ({"rate_limit": rate} if rate else {})
    limits = RateLimits(Settings.model_validate({"agents": {AGENT: agent}}, strict=False))
    buckets = Buckets()
    means = Means(
        Pools({AGENT: pool}),
        transport,
        {AGENT: headers or {}},
        limits,
        buckets,
        lambda: chance,
        grace_seconds,
        outbox=outbox,
    )
    try:
        yield Chunker(ChunkCalls(means), pool, buckets, limits)
    finally:
        await transport.close()


def by_position(report: ChunkReport) -> dict[int, ItemOutcome]:
    """The outcomes; fails where an item has two."""
    found = {each.position: each for each in report.outcomes}
    assert len(found) == len(report.outcomes)
    return found


def places(outcomes: Iterable[Any]) -> list[int]:
    """Positions in their order."""
    return sorted(each.position for each in outcomes)
