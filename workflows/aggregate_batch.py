"""The batch of tasks that an aggregate has started itself."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import (
    ApplicationError,
    ChildWorkflowError,
    WorkflowAlreadyStartedError,
)

from orchestrator.aggregates import FanOut
from orchestrator.batches import BATCH_WORKFLOW, Batch
from orchestrator.engine import search_attributes
from orchestrator.engine.converter import INVALID_INPUT
from orchestrator.routing import WORKFLOW_QUEUE


class OwnBatch:
    """Started, listened to, cancelled.

    ``refusal`` is why it has taken none of the tasks; all else, its items tell.
    """

    def __init__(self, fan_out: FanOut) -> None:
        self._fan_out = fan_out
        self._running: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self.refusal: str | None = None

    @property
    def batch_id(self) -> str:
        """The id of its workflow."""
        return self._fan_out.batch_id

    def start(self, batch: Batch, tenant: str | None = None) -> None:
        """Have it started, whatever becomes of whoever waits for that; all of it is a tenant's."""
        self._running = asyncio.create_task(self._run(batch, tenant))

    async def begun(self) -> None:
        """Wait until it is started, if it is to be."""
        if self._running is not None:
            await self._begun.wait()
            if self._running.done():
                self._running.result()

    async def cancel(self) -> None:
        """Ask it to end; one that has ended, or was never started, needs nothing."""
        if self._running is not None:
            await self._begun.wait()
        try:
            await workflow.get_external_workflow_handle(self.batch_id).cancel()
        except ApplicationError:
            return

    async def _run(self, batch: Batch, tenant: str | None) -> None:
        try:
            child = await workflow.start_child_workflow(
                BATCH_WORKFLOW,
                batch,
                id=self.batch_id,
                task_queue=WORKFLOW_QUEUE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                static_summary=f"{self._fan_out.total} tasks of an aggregate",
                search_attributes=search_attributes.of_tenant(tenant),
            )
        except WorkflowAlreadyStartedError:
            # By this very aggregate, before somebody reset it.
            return
        finally:
            self._begun.set()
        try:
            await child
        except ChildWorkflowError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type == INVALID_INPUT:
                self.refusal = cause.message
