"""How many items of a batch have ended, and how: what GET /batches/{batch_id} answers."""

import json
from collections.abc import Sequence
from datetime import timedelta

from temporalio.api.workflowservice.v1 import CountWorkflowExecutionsRequest
from temporalio.client import Client

from orchestrator.batches import BatchStatus, BatchTally
from orchestrator.dead_letters import dead_letter_id
from orchestrator.engine import search_attributes
from orchestrator.engine.batch_parts import BatchParts, Part
from orchestrator.engine.histories import Histories
from orchestrator.engine.listing import STATE_BY_NAME, quoted
from orchestrator.engine.record import Recorder
from orchestrator.engine.reports import readable
from orchestrator.engine.rpc import engine_call
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_TYPE

_CLOCKS_APART = timedelta(minutes=1)


class BatchCounts:
    """Counts, each call to the engine bounded by ``rpc_timeout`` seconds.

    What its workflows have counted lags by up to a hundredth of the items while they run; their
    chunks under way tell of what ended since. Items that are run again count as they are now.
    """

    def __init__(
        self, client: Client, parts: BatchParts, histories: Histories, rpc_timeout: float
    ) -> None:
        self._client = client
        self._parts = parts
        self._histories = histories
        self._deadline = timedelta(seconds=rpc_timeout)
        self._recorder = Recorder(client.data_converter)

    async def status(self, batch_id: str) -> BatchStatus:
        """The batch as it is now.

        Raises:
            BatchNotFound: no such batch.
            EngineUnavailable: the engine does not answer.
        """
        parts = await self._parts.all(batch_id)
        tally = BatchTally()
        for part in parts:
            tally = tally.plus(await self._counted(part))
        if tally.failed:
            tally = await self._with_redriven(parts[0], tally)
        return BatchStatus(
            batch_id=batch_id,
            status=_state(parts, tally),
            total=tally.total,
            completed=tally.completed,
            failed=tally.failed,
            cancelled=tally.cancelled,
            pending=tally.pending,
            created_at=parts[0].created_at,
            updated_at=max(part.updated_at for part in parts),
            error=await self._error(parts[0]),
            tenant=parts[0].tenant,
        )

    async def _counted(self, part: Part) -> BatchTally:
        """What the part has counted, and what its chunks have told since."""
        tally = part.tally
        if part.closed is TaskState.COMPLETED and tally.pending:
            tally = await self._result(part) or tally
        if part.closed:
            rest = "cancelled" if part.closed is TaskState.CANCELLED else "failed"
            ended = {rest: getattr(tally, rest) + tally.pending}
            return tally.model_copy(update=ended)
        for chunk in part.chunks.values():
            for state in await self._parts.states(chunk):
                name = state.value
                if tally.pending:
                    tally = tally.model_copy(update={name: getattr(tally, name) + 1})
        return tally

    async def _result(self, part: Part) -> BatchTally | None:
        """What the workflow of coalesced tasks says at its end only."""
        event = await self._histories.closing_event(part.execution.workflow_id, 0)
        if event is None:
            return None
        payloads = event.workflow_execution_completed_event_attributes.result.payloads
        return await readable(self._client.data_converter, payloads, BatchTally)

    async def _with_redriven(self, lead: Part, tally: BatchTally) -> BatchTally:
        """Items that failed and were run again, counted by how they are now."""
        since = (lead.created_at - _CLOCKS_APART).isoformat()
        query = (
            f"WorkflowType = '{WORKFLOW_TYPE}'"
            f" AND {search_attributes.BATCH.name} = {quoted(lead.batch_id)}"
            f" AND ParentWorkflowId STARTS_WITH {quoted(dead_letter_id(''))}"
            f" AND StartTime >= {quoted(since)} GROUP BY ExecutionStatus"
        )
        async with engine_call(self._deadline):
            answer = await self._client.workflow_service.count_workflow_executions(
                CountWorkflowExecutionsRequest(namespace=self._client.namespace, query=query),
                retry=True,
                timeout=self._deadline,
            )
        counts = {
            "failed": tally.failed,
            "completed": tally.completed,
            "cancelled": tally.cancelled,
        }
        for group in answer.groups:
            state = STATE_BY_NAME.get(json.loads(group.group_values[0].data), TaskState.RUNNING)
            if state is TaskState.FAILED:
                continue  # and may have been run once more
            moved = min(group.count, counts["failed"])
            counts["failed"] -= moved
            if state.value in counts:
                counts[state.value] += moved
        return tally.model_copy(update=counts)

    async def _error(self, lead: Part) -> str | None:
        if lead.closed is not TaskState.FAILED:
            return None
        event = await self._histories.closing_event(lead.execution.workflow_id, 0)
        if event is None:
            return None
        return (await self._recorder.closed_status(lead.info, event)).error


def _state(parts: Sequence[Part], tally: BatchTally) -> TaskState:
    closed = parts[0].closed
    if closed is TaskState.COMPLETED and tally.pending:
        return TaskState.RUNNING  # what was redriven
    if closed is not None:
        return closed
    return TaskState.RUNNING if any(part.is_begun for part in parts) else TaskState.QUEUED
