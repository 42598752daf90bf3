"""Lists of batches, which lag behind what happens by some 100 ms."""

from datetime import timedelta

from temporalio.api.workflowservice.v1 import (
    ListWorkflowExecutionsRequest,
    ListWorkflowExecutionsResponse,
)
from temporalio.client import Client

from orchestrator.batches import (
    BATCH_WORKFLOW,
    MEMO_STARTS,
    MEMO_TALLY,
    BatchPage,
    BatchStatus,
    BatchTally,
)
from orchestrator.engine import search_attributes
from orchestrator.engine.batch_counts import BatchCounts
from orchestrator.engine.listing import decoded, encoded
from orchestrator.engine.record import MEMO_DISPATCH, Recorder
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import BatchNotFound
from orchestrator.models import Dispatch

_OPEN_PAGE = 200


class BatchLists:
    """Lists batches, each call to the engine bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer.
    """

    def __init__(self, client: Client, counts: BatchCounts, rpc_timeout: float) -> None:
        self._client = client
        self._counts = counts
        self._deadline = timedelta(seconds=rpc_timeout)
        self._recorder = Recorder(client.data_converter)

    async def page(self, size: int, cursor: str | None = None) -> BatchPage:
        """Batches, newest first.

        Raises:
            InvalidCursor: the cursor is not one of ours.
        """
        answer = await self._list(
            # Tasks that were coalesced are found by their batch, and are no batch to anybody.
            f"ExecutionStatus != 'ContinuedAsNew' AND {search_attributes.BATCH.name} IS NULL",
            size,
            decoded(cursor),
        )
        found = []
        for info in answer.executions:
            memo = await self._recorder.memo(info.memo)
            # Further parts have none.
            if MEMO_STARTS in memo:
                found.append(await self._listed(info.execution.workflow_id))
        batches = tuple(each for each in found if each is not None)
        return BatchPage(batches=batches, next_cursor=encoded(answer.next_page_token))

    async def _listed(self, batch_id: str) -> BatchStatus | None:
        try:
            return await self._counts.status(batch_id)
        except BatchNotFound:
            return None

    async def pending(self) -> tuple[int, int]:
        """How many items of open batches have not ended.

        Returns:
            All of them, and those among them that were handed in as single tasks.
        """
        total = coalesced = 0
        token = b""
        while True:
            answer = await self._list("ExecutionStatus = 'Running'", _OPEN_PAGE, token)
            for info in answer.executions:
                memo = await self._recorder.memo(info.memo)
                pending = BatchTally.model_validate(memo.get(MEMO_TALLY, {})).pending
                total += pending
                if memo.get(MEMO_DISPATCH) == Dispatch.COALESCED:
                    coalesced += pending
            token = answer.next_page_token
            if not token:
                return total, coalesced

    async def _list(self, clause: str, size: int, token: bytes) -> ListWorkflowExecutionsResponse:
        request = ListWorkflowExecutionsRequest(
            namespace=self._client.namespace,
            page_size=size,
            next_page_token=token,
            query=f"WorkflowType = '{BATCH_WORKFLOW}' AND {clause}",
        )
        async with engine_call(self._deadline):
            return await self._client.workflow_service.list_workflow_executions(
                request, retry=True, timeout=self._deadline
            )
