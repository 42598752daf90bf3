"""Give a task that has not ended another priority."""

from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.activity.v1 import ActivityOptions
from temporalio.api.common.v1 import Priority, WorkflowExecution
from temporalio.api.workflowservice.v1 import UpdateActivityOptionsRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.engine.rpc import engine_call
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import OrderRefused
from orchestrator.statuses import TaskStatus
from orchestrator.values import MAX_PRIORITY

SET_PRIORITY = "set_priority"
"""The signal by which the task's workflow has later calls, and its attribute, follow."""


class Priorities:
    """Changes priorities, each call to the engine bounded by ``rpc_timeout`` seconds."""

    def __init__(self, client: Client, tasks: Tasks, rpc_timeout: float) -> None:
        self._client = client
        self._tasks = tasks
        self._deadline = timedelta(seconds=rpc_timeout)

    async def change(self, task_id: str, priority: int) -> TaskStatus:
        """Have the task's calls go by ours of 1 to 5, also one that waits in its queue already.

        The engine moves that one within about a second.

        Returns:
            The status; lists show the priority as soon as a worker has told the workflow of it.

        Raises:
            TaskNotFound: no such task.
            OrderRefused: the task has ended, or has no workflow of its own in its batch.
            EngineUnavailable: the engine did not answer.
        """
        status = await self._tasks.status(task_id)
        if status.status.is_final:
            raise _ended(task_id, status)
        try:
            async with engine_call(self._deadline):
                await self._client.get_workflow_handle(task_id).signal(
                    SET_PRIORITY, priority, rpc_timeout=self._deadline
                )
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            raise _refused(task_id, await self._tasks.status(task_id)) from None
        await self._move(task_id, priority)
        status = await self._tasks.status(task_id)
        return status.model_copy(update={"priority": priority})

    async def _move(self, task_id: str, priority: int) -> None:
        """Move the call that waits, if one does, to the other level of its queue."""
        try:
            async with engine_call(self._deadline):
                await self._client.workflow_service.update_activity_options(
                    UpdateActivityOptionsRequest(
                        namespace=self._client.namespace,
                        execution=WorkflowExecution(workflow_id=task_id),
                        identity=self._client.identity,
                        activity_options=ActivityOptions(
                            priority=Priority(priority_key=MAX_PRIORITY + 1 - priority)
                        ),
                        update_mask=FieldMask(paths=["priority.priority_key"]),
                        match_all=True,
                    ),
                    timeout=self._deadline,
                )
        except RPCError as error:
            # No call waits now: between two, within the workflow's own worker, or it just ended.
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise


def _refused(task_id: str, status: TaskStatus) -> OrderRefused:
    if status.status.is_final:
        return _ended(task_id, status)
    return OrderRefused(f"Task '{task_id}' keeps the priority of its batch", "conflict")


def _ended(task_id: str, status: TaskStatus) -> OrderRefused:
    return OrderRefused(f"Task '{task_id}' has ended: it is {status.status}", "conflict")
