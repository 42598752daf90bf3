"""Batches handed in: each part a workflow, started once however often it is asked for."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from orchestrator.batches import (
    BATCH_WORKFLOW,
    MEMO_STARTS,
    MEMO_TALLY,
    Batch,
    BatchStatus,
    BatchTally,
    part_id,
)
from orchestrator.engine import search_attributes
from orchestrator.engine.batch_parts import BatchParts
from orchestrator.engine.histories import Histories
from orchestrator.engine.record import (
    MEMO_CREATED_AT,
    MEMO_DISPATCH,
    MEMO_FINGERPRINT,
    STATES,
    Recorder,
)
from orchestrator.engine.rpc import EAGERLY_ONCE, engine_call
from orchestrator.errors import BatchNotFound, EngineRefused, IdempotencyConflict
from orchestrator.models import Dispatch, TaskState
from orchestrator.routing import WORKFLOW_QUEUE

_PARTS_AT_ONCE = 4


@dataclass(frozen=True)
class SubmittedBatch:
    """What became of a batch handed in; ``created`` is False when it existed before."""

    status: BatchStatus
    created: bool


class BatchStarts:
    """Starts batches, each call to the engine bounded by ``rpc_timeout`` seconds."""

    def __init__(
        self,
        client: Client,
        parts: BatchParts,
        histories: Histories,
        rpc_timeout: float,
        *,
        notes_builds: bool,
    ) -> None:
        self._client = client
        self._parts = parts
        self._histories = histories
        self._deadline = timedelta(seconds=rpc_timeout)
        self._notes_builds = notes_builds
        self._recorder = Recorder(client.data_converter)

    async def submit(
        self, batch_id: str, parts: Sequence[Batch], fingerprint: str | None = None
    ) -> SubmittedBatch:
        """Start the batch: its further parts, which wait, then the one that lets them begin.

        Args:
            batch_id: the workflow's id.
            parts: with ``created_at``, in their order.
            fingerprint: of the request, when the id was made from an idempotency key.

        Raises:
            PayloadTooLarge: the engine would refuse the input.
            IdempotencyConflict: the id exists with another fingerprint.
        """
        if fingerprint is not None and len(parts) > 1:
            try:
                return await self.existing(batch_id, fingerprint)
            except BatchNotFound:
                pass
        total = sum(len(part.items) for part in parts)
        tenant = _tenant_of(parts)
        try:
            await self._start_further(batch_id, parts, total, fingerprint)
            await self._start(
                batch_id,
                parts[0],
                static_summary=f"{total:,} tasks",
                memo=_memo(parts[0], fingerprint),
                search_attributes=search_attributes.of_tenant(tenant),
                **EAGERLY_ONCE,
            )
        except WorkflowAlreadyStartedError:
            return await self.existing(batch_id, fingerprint)
        except RPCError as error:
            raise EngineRefused(f"The engine refuses the batch: {error.message}") from None
        created_at = parts[0].created_at
        assert created_at is not None  # noqa: S101 - as the caller has promised
        return SubmittedBatch(_begun(batch_id, total, created_at, tenant), created=True)

    async def coalesced(self, batch: Batch) -> None:
        """Start tasks that were handed in at the same moment, as one batch of one part.

        Raises:
            EngineRefused: the engine will not have it.
        """
        batch_id = batch.batch_id
        assert batch_id is not None  # noqa: S101 - whoever gathers them names it
        attributes = search_attributes.of_coalesced(batch_id, notes_builds=self._notes_builds)
        try:
            await self._start(
                batch_id,
                batch,
                static_summary=f"{len(batch.items):,} coalesced tasks",
                memo=_memo(batch, None),
                search_attributes=attributes,
                **EAGERLY_ONCE,
            )
        except WorkflowAlreadyStartedError:
            pass  # by this very call, since nobody else has the id
        except RPCError as error:
            raise EngineRefused(f"The engine refuses the task: {error.message}") from None

    async def _start_further(
        self, batch_id: str, parts: Sequence[Batch], total: int, fingerprint: str | None
    ) -> None:
        turn = asyncio.Semaphore(_PARTS_AT_ONCE)

        async def one(part: Batch) -> None:
            workflow_id = part_id(batch_id, part.part)
            async with turn:
                try:
                    await self._start(
                        workflow_id,
                        part,
                        static_summary=f"{len(part.items):,} of {total:,} tasks of batch "
                        f"{batch_id}",
                        memo=_memo(part, fingerprint),
                        search_attributes=search_attributes.of_tenant(_tenant_of(parts)),
                        # One that was never released may be started again.
                        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    )
                except WorkflowAlreadyStartedError:
                    if not await self._waits(workflow_id, batch_id, fingerprint):
                        raise

        # Of two requests with one key, whoever has the first of them may go on.
        for part in parts[1:2]:
            await one(part)
        await asyncio.gather(*map(one, parts[2:]))

    async def _waits(self, workflow_id: str, batch_id: str, fingerprint: str | None) -> bool:
        """Whether a part that exists is the same and open: its request was begun before.

        Raises:
            IdempotencyConflict: it is of another request.
        """
        info = (await self._histories.describe(workflow_id)).workflow_execution_info
        memo = await self._recorder.memo(info.memo)
        if fingerprint is None or memo.get(MEMO_FINGERPRINT) != fingerprint:
            raise IdempotencyConflict(batch_id, "batch")
        return info.status not in STATES

    async def _start(self, workflow_id: str, part: Batch, **chosen: Any) -> None:
        async with engine_call(self._deadline):
            await self._client.start_workflow(
                BATCH_WORKFLOW,
                part,
                id=workflow_id,
                task_queue=WORKFLOW_QUEUE,
                rpc_timeout=self._deadline,
                **chosen,
            )

    async def existing(self, batch_id: str, fingerprint: str | None) -> SubmittedBatch:
        """The answer that the batch got when it was handed in first.

        Raises:
            BatchNotFound: it was not.
            IdempotencyConflict: the id exists with another fingerprint.
        """
        parts = await self._parts.all(batch_id)
        if fingerprint is None or parts[0].memo.get(MEMO_FINGERPRINT) != fingerprint:
            raise IdempotencyConflict(batch_id, "batch")
        total = sum(part.tally.total for part in parts)
        status = _begun(batch_id, total, parts[0].created_at, parts[0].tenant)
        return SubmittedBatch(status, created=False)


def _begun(batch_id: str, total: int, created_at: datetime, tenant: str | None) -> BatchStatus:
    """The answer to whoever hands a batch in, the same however often that is repeated."""
    return BatchStatus(
        batch_id=batch_id,
        status=TaskState.QUEUED,
        total=total,
        pending=total,
        created_at=created_at,
        updated_at=created_at,
        tenant=tenant,
    )


def _tenant_of(parts: Sequence[Batch]) -> str | None:
    """Whose all of the items are; None where they are several tenants'."""
    tenants = {plan.tenant for part in parts for plan in part.plans}
    return tenants.pop() if len(tenants) == 1 else None


def _memo(part: Batch, fingerprint: str | None) -> dict[str, Any]:
    memo: dict[str, Any] = {MEMO_TALLY: BatchTally(total=len(part.items))}
    if part.created_at is not None:
        memo[MEMO_CREATED_AT] = part.created_at.isoformat()
    if part.part == 0:
        memo[MEMO_STARTS] = list(part.starts)
    if part.coalesced:
        memo[MEMO_DISPATCH] = Dispatch.COALESCED
    if fingerprint is not None:
        memo[MEMO_FINGERPRINT] = fingerprint
    return memo
