"""Orders about many dead letters in the engine: start one, follow it, stop it."""

from datetime import timedelta

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryRequest,
)
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.dead_letters import (
    BULK_WORKFLOW,
    BulkOrder,
    BulkState,
    BulkStatus,
    BulkTally,
    bulk_id,
)
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import RedriveNotFound
from orchestrator.routing import WORKFLOW_QUEUE

_STATES: dict[int, BulkState] = {
    WorkflowExecutionStatus.RUNNING: BulkState.RUNNING,
    WorkflowExecutionStatus.COMPLETED: BulkState.COMPLETED,
    WorkflowExecutionStatus.CANCELED: BulkState.CANCELLED,
}
_ABSENT = {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}


class Redrives:
    """The engine's orders about many, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer.
    """

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)

    async def start(self, redrive_id: str, order: BulkOrder) -> BulkStatus:
        """Begin to carry out an order, durably."""
        async with engine_call(self._deadline):
            await self._client.start_workflow(
                BULK_WORKFLOW,
                order,
                id=bulk_id(redrive_id),
                task_queue=WORKFLOW_QUEUE,
                static_summary=f"{order.action} {order.matched} dead letters",
                rpc_timeout=self._deadline,
            )
        return _status(redrive_id, order, BulkState.RUNNING, BulkTally())

    async def status(self, redrive_id: str) -> BulkStatus:
        """How far it has come; the numbers of a running one are some seconds old.

        Raises:
            RedriveNotFound: no such order.
        """
        try:
            async with engine_call(self._deadline):
                record = await self._describe(redrive_id)
                order = await self._order(redrive_id)
                tally = await self._tally(record, redrive_id)
        except RPCError as error:
            raise _not_found(error, redrive_id) from None
        state = _STATES.get(record.workflow_execution_info.status, BulkState.FAILED)
        return _status(redrive_id, order, BulkState.CANCELLED if tally.cancelled else state, tally)

    async def cancel(self, redrive_id: str) -> BulkStatus:
        """Stop it; what was done stays done.

        Raises:
            RedriveNotFound: no such order.
        """
        status = await self.status(redrive_id)
        if status.state is BulkState.RUNNING:
            try:
                async with engine_call(self._deadline):
                    await self._client.get_workflow_handle(bulk_id(redrive_id)).cancel(
                        rpc_timeout=self._deadline
                    )
            except RPCError as error:
                # It ended in between.
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
        return status

    async def _describe(self, redrive_id: str) -> DescribeWorkflowExecutionResponse:
        return await self._client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(
                namespace=self._client.namespace,
                execution=WorkflowExecution(workflow_id=bulk_id(redrive_id)),
            ),
            retry=True,
            timeout=self._deadline,
        )

    async def _order(self, redrive_id: str) -> BulkOrder:
        answer = await self._client.workflow_service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=self._client.namespace,
                execution=WorkflowExecution(workflow_id=bulk_id(redrive_id)),
                maximum_page_size=1,
            ),
            retry=True,
            timeout=self._deadline,
        )
        started = answer.history.events[0].workflow_execution_started_event_attributes
        decode = self._client.data_converter.decode
        order: BulkOrder = (await decode(started.input.payloads, [BulkOrder]))[0]
        return order

    async def _tally(self, record: DescribeWorkflowExecutionResponse, redrive_id: str) -> BulkTally:
        info = record.workflow_execution_info
        if _STATES.get(info.status) is BulkState.COMPLETED:
            handle = self._client.get_workflow_handle(bulk_id(redrive_id), result_type=BulkTally)
            result: BulkTally = await handle.result(rpc_timeout=self._deadline)
            return result
        for activity in record.pending_activities:
            if activity.heartbeat_details.payloads:
                decode = self._client.data_converter.decode
                tally: BulkTally = (await decode(activity.heartbeat_details.payloads, [BulkTally]))[
                    0
                ]
                return tally
        return BulkTally()


def _status(redrive_id: str, order: BulkOrder, state: BulkState, tally: BulkTally) -> BulkStatus:
    return BulkStatus(
        redrive_id=redrive_id,
        action=order.action,
        state=state,
        matched=tally.matched or order.matched,
        done=tally.done,
        failed=tally.failed,
        skipped=tally.skipped,
        last_failure=tally.last_failure or None,
        tenant=order.filter.tenant,
    )


def _not_found(error: RPCError, redrive_id: str) -> Exception:
    return RedriveNotFound(redrive_id) if error.status in _ABSENT else error
