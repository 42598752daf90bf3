"""Lists of batches, which lag behind what happens by some 100 ms."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

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
from orchestrator.engine.listing import decoded, encoded, quoted
from orchestrator.engine.record import MEMO_DISPATCH, Recorder
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import BatchNotFound
from orchestrator.models import Dispatch

_OPEN_PAGE = 200


@dataclass(frozen=True)
class OpenBatches:
    """Batches that have not ended, by what they have told.

    Args:
        batches: how many were handed in, of however many parts.
        items: how their items have ended so far.
        coalesced: the same of single tasks that were gathered into batches.
    """

    batches: int = 0
    items: BatchTally = field(default_factory=BatchTally)
    coalesced: BatchTally = field(default_factory=BatchTally)

    @property
    def pending(self) -> int:
        """Items of both kinds that have not ended."""
        return self.items.pending + self.coalesced.pending

    def plus(self, memo: Mapping[str, Any]) -> "OpenBatches":
        """These and one more part, with what its memo says."""
        tally = BatchTally.model_validate(memo.get(MEMO_TALLY, {}))
        if memo.get(MEMO_DISPATCH) == Dispatch.COALESCED:
            return replace(self, coalesced=self.coalesced.plus(tally))
        leads = MEMO_STARTS in memo
        return replace(self, batches=self.batches + leads, items=self.items.plus(tally))


class BatchLists:
    """Lists batches, each call to the engine bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer.
    """

    def __init__(self, client: Client, counts: BatchCounts, rpc_timeout: float) -> None:
        self._client = client
        self._counts = counts
        self._deadline = timedelta(seconds=rpc_timeout)
        self._recorder = Recorder(client.data_converter)

    async def page(
        self, size: int, cursor: str | None = None, tenant: str | None = None
    ) -> BatchPage:
        """Batches, newest first; with a tenant those whose items are all that one's.

        Raises:
            InvalidCursor: the cursor is not one of ours.
        """
        answer = await self._list(
            # Tasks that were coalesced are found by their batch, and are no batch to anybody.
            f"ExecutionStatus != 'ContinuedAsNew' AND {search_attributes.BATCH.name} IS NULL"
            + (f" AND {search_attributes.TENANT.name} = {quoted(tenant)}" if tenant else ""),
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

    async def open(self) -> OpenBatches:
        """What has become of the items of batches that have not ended."""
        found = OpenBatches()
        token = b""
        while True:
            answer = await self._list("ExecutionStatus = 'Running'", _OPEN_PAGE, token)
            for info in answer.executions:
                found = found.plus(await self._recorder.memo(info.memo))
            token = answer.next_page_token
            if not token:
                return found

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
