"""How much of the engine a tenant uses, by its lists: they lag by some 100 ms."""

from datetime import UTC, datetime, timedelta

from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    ListWorkflowExecutionsRequest,
)
from temporalio.client import Client

from orchestrator.batches import BATCH_WORKFLOW, MEMO_TALLY, BatchTally
from orchestrator.engine import search_attributes
from orchestrator.engine.listing import quoted
from orchestrator.engine.record import Recorder
from orchestrator.engine.rpc import engine_call
from orchestrator.routing import WORKFLOW_TYPE

_PAGE = 1000


class Usage:
    """Counts tasks and items of batches, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer.
    """

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)
        self._recorder = Recorder(client.data_converter)

    async def running(self, tenant: str) -> int:
        """How many of the tenant's tasks have not ended."""
        clause = f"ExecutionStatus = 'Running' AND {_its(tenant)}"
        tallies = await self._tallies(clause)
        return await self._tasks(clause) + sum(each.pending for each in tallies)

    async def since(self, tenant: str, moment: datetime) -> int:
        """How many of the tenant's tasks were started then or later."""
        start = quoted(moment.astimezone(UTC).isoformat())
        clause = f"StartTime >= {start} AND {_its(tenant)}"
        tallies = await self._tallies(f"ExecutionStatus != 'ContinuedAsNew' AND {clause}")
        return await self._tasks(clause) + sum(each.total for each in tallies)

    async def _tasks(self, clause: str) -> int:
        """Those that are no items: a batch counts its own."""
        request = CountWorkflowExecutionsRequest(
            namespace=self._client.namespace,
            query=f"WorkflowType = '{WORKFLOW_TYPE}' AND {clause}"
            f" AND {search_attributes.BATCH.name} IS NULL",
        )
        async with engine_call(self._deadline):
            answer = await self._client.workflow_service.count_workflow_executions(
                request, retry=True, timeout=self._deadline
            )
        return answer.count

    async def _tallies(self, clause: str) -> list[BatchTally]:
        request = ListWorkflowExecutionsRequest(
            namespace=self._client.namespace,
            page_size=_PAGE,
            query=f"WorkflowType = '{BATCH_WORKFLOW}' AND {clause}",
        )
        found: list[BatchTally] = []
        while True:
            async with engine_call(self._deadline):
                answer = await self._client.workflow_service.list_workflow_executions(
                    request, retry=True, timeout=self._deadline
                )
            for info in answer.executions:
                memo = await self._recorder.memo(info.memo)
                found.append(BatchTally.model_validate(memo.get(MEMO_TALLY, {})))
            if not answer.next_page_token:
                return found
            request.next_page_token = answer.next_page_token


def _its(tenant: str) -> str:
    return f"{search_attributes.TENANT.name} = {quoted(tenant)}"
