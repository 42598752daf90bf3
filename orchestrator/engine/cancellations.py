"""Orders to cancel many tasks, which the engine carries out as batch operations of its own."""

import re
from datetime import timedelta

from temporalio.api.batch.v1 import BatchOperationCancellation
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import (
    BatchOperationState,
    BatchOperationType,
    WorkflowExecutionStatus,
)
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DescribeBatchOperationRequest,
    DescribeBatchOperationResponse,
    DescribeWorkflowExecutionRequest,
    StartBatchOperationRequest,
    StopBatchOperationRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.cancellations import (
    CancellationFilter,
    CancellationState,
    CancellationStatus,
    job_id,
)
from orchestrator.engine import listing, search_attributes
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import CancellationNotFound, OrderRefused
from orchestrator.models import TaskState

NO_REASON = "cancelled by a filter"
"""The engine wants a reason for every batch operation."""

_STATES: dict[int, CancellationState] = {
    BatchOperationState.BATCH_OPERATION_STATE_RUNNING: CancellationState.RUNNING,
    BatchOperationState.BATCH_OPERATION_STATE_COMPLETED: CancellationState.COMPLETED,
}
_ABSENT = {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}


class Cancellations:
    """The engine's orders to cancel many, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer. None needs a worker of
    ours, though a task ends only when one takes its cancellation up.
    """

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)

    async def count(self, chosen: CancellationFilter) -> int:
        """How many open tasks are meant now. Counts lag behind submissions by some 100 ms."""
        return await self._count(query(chosen))

    async def start(
        self, order_id: str, chosen: CancellationFilter, reason: str, by: str, matched: int
    ) -> CancellationStatus:
        """Begin to cancel what is open and selected, durably.

        Args:
            order_id: a new one.
            chosen: what is meant.
            reason: why, and who wants it in ``by``; kept with the batch operation.
            by: who wants it.
            matched: how many were counted.

        Raises:
            OrderRefused: the engine carries out as many batch operations as it may.
        """
        request = StartBatchOperationRequest(
            namespace=self._client.namespace,
            job_id=job_id(order_id),
            visibility_query=query(chosen),
            reason=reason or NO_REASON,
            cancellation_operation=BatchOperationCancellation(identity=by),
        )
        await self._begin(request)
        return CancellationStatus(
            order_id=order_id,
            state=CancellationState.RUNNING,
            matched=matched,
            tenant=chosen.tenant,
        )

    async def _begin(self, request: StartBatchOperationRequest) -> None:
        async with engine_call(self._deadline):
            try:
                # Not repeated by the client: it would spend our patience on a limit that stays.
                await self._client.workflow_service.start_batch_operation(
                    request, timeout=self._deadline
                )
            except RPCError as error:
                if error.status is not RPCStatusCode.RESOURCE_EXHAUSTED:
                    raise
                raise OrderRefused(
                    "The engine takes no further batch operation now; wait until one has ended "
                    f"(temporal batch list) and send the order again. It says: {error.message}",
                    "conflict",
                ) from None

    async def status(self, order_id: str) -> CancellationStatus:
        """How far it has come.

        Raises:
            CancellationNotFound: no such order.
        """
        try:
            async with engine_call(self._deadline):
                found = await self._describe(order_id)
                state = _STATES.get(found.state) or await self._failed(order_id)
        except RPCError as error:
            raise _not_found(error, order_id) from None
        status = CancellationStatus(
            order_id=order_id,
            state=state,
            matched=found.total_operation_count,
            done=found.complete_operation_count,
            failed=found.failure_operation_count,
            tenant=_tenant_of(found.query),
        )
        if state is CancellationState.COMPLETED:
            return status
        # The engine tells its numbers late, and not at all of what was stopped.
        left = await self._count(found.query)
        matched = status.matched or left
        done = max(status.done, matched - left)
        return status.model_copy(update={"matched": matched, "done": done})

    async def stop(self, order_id: str) -> CancellationStatus:
        """Leave the rest as it is; an order that has ended stays as it is.

        Raises:
            CancellationNotFound: no such order.
        """
        status = await self.status(order_id)
        if status.state is CancellationState.RUNNING:
            try:
                async with engine_call(self._deadline):
                    await self._client.workflow_service.stop_batch_operation(
                        StopBatchOperationRequest(
                            namespace=self._client.namespace,
                            job_id=job_id(order_id),
                            reason="stopped",
                            identity=self._client.identity,
                        ),
                        retry=True,
                        timeout=self._deadline,
                    )
            except RPCError as error:
                # It ended in between.
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
            status = await self.status(order_id)
        return status

    async def _describe(self, order_id: str) -> DescribeBatchOperationResponse:
        found = await self._client.workflow_service.describe_batch_operation(
            DescribeBatchOperationRequest(
                namespace=self._client.namespace, job_id=job_id(order_id)
            ),
            retry=True,
            timeout=self._deadline,
        )
        # The engine answers for any workflow of that id.
        if found.operation_type != BatchOperationType.BATCH_OPERATION_TYPE_CANCEL_WORKFLOW:
            raise CancellationNotFound(order_id)
        return found

    async def _failed(self, order_id: str) -> CancellationState:
        """Whether an order that the engine calls failed was stopped: its workflow tells."""
        record = await self._client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(
                namespace=self._client.namespace,
                execution=WorkflowExecution(workflow_id=job_id(order_id)),
            ),
            retry=True,
            timeout=self._deadline,
        )
        status = record.workflow_execution_info.status
        if status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED:
            return CancellationState.STOPPED
        return CancellationState.FAILED

    async def _count(self, selected: str) -> int:
        async with engine_call(self._deadline):
            answer = await self._client.workflow_service.count_workflow_executions(
                CountWorkflowExecutionsRequest(namespace=self._client.namespace, query=selected),
                retry=True,
                timeout=self._deadline,
            )
        return answer.count


def query(chosen: CancellationFilter) -> str:
    """The engine's list filter for the open tasks that are meant."""
    return listing.query(listing.TaskFilter(status=TaskState.RUNNING, **dict(chosen)))


# Quotes within a value are escaped, so that no value can look like this.
_TENANT = re.compile(rf" AND {search_attributes.TENANT.name} = '([A-Za-z0-9_.@:-]+)'")


def _tenant_of(selected: str) -> str | None:
    """The tenant that a list filter names."""
    found = _TENANT.search(selected)
    return found[1] if found else None


def _not_found(error: RPCError, order_id: str) -> Exception:
    return CancellationNotFound(order_id) if error.status in _ABSENT else error
