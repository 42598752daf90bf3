"""Dead letters in the engine: list, look up, count, redrive, discard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
    ListWorkflowExecutionsRequest,
)
from temporalio.client import (
    Client,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.dead_letters import (
    DEAD_LETTER_WORKFLOW,
    BulkAction,
    DeadLetterDetail,
    DeadLetterEntry,
    DeadLetterFilter,
    DeadLetterItem,
    DeadLetterOrder,
    DeadLetterPage,
    Resolved,
    dead_letter_id,
    request_of,
    task_id_of,
)
from orchestrator.engine import search_attributes
from orchestrator.engine.listing import decoded, encoded, quoted
from orchestrator.engine.record import MEMO_CREATED_AT, Recorder, moment
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.search_attributes import value_of
from orchestrator.errors import DeadLetterNotFound, EngineUnavailable, OrderRefused

MEMO_FAILED_AT = "failed_at"
MEMO_ERROR = "error"
MEMO_ATTEMPTS = "attempts"
MEMO_RUNS = "runs"
MEMO_REPEATABLE = "repeatable"

RESOLVED_BEFORE = "DeadLetterResolved"
"""The type of a refusal: somebody was faster."""
REFUSED = "RedriveRefused"
"""The type of a refusal: it cannot be run again as things are."""

_OPEN = f"WorkflowType = '{DEAD_LETTER_WORKFLOW}' AND ExecutionStatus = 'Running'"
_ABSENT = {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}


@dataclass(frozen=True)
class FoundDeadLetter:
    """A dead letter in the list.

    ``run_id`` tells it from later ones of the same task; ``repeatable`` says whether redriving it
    can do no harm.
    """

    item: DeadLetterItem
    run_id: str
    repeatable: bool


class DeadLetters:
    """The engine's dead letters, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer. Looking needs no worker;
    redriving and discarding need one that runs workflows.
    """

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)
        self._recorder = Recorder(client.data_converter)

    async def page(
        self, chosen: DeadLetterFilter, size: int, cursor: str | None = None
    ) -> DeadLetterPage:
        """One page, newest first. Lists lag behind what happens by some 100 ms.

        Raises:
            InvalidCursor: the cursor is not one of ours.
        """
        found, following = await self.find(chosen, size, cursor)
        return DeadLetterPage(
            dead_letters=tuple(each.item for each in found), next_cursor=following
        )

    async def find(
        self, chosen: DeadLetterFilter, size: int, cursor: str | None = None
    ) -> tuple[Sequence[FoundDeadLetter], str | None]:
        """The dead letters of one page, and the cursor of the next."""
        request = ListWorkflowExecutionsRequest(
            namespace=self._client.namespace,
            page_size=size,
            next_page_token=decoded(cursor),
            query=query(chosen),
        )
        async with engine_call(self._deadline):
            answer = await self._client.workflow_service.list_workflow_executions(
                request, retry=True, timeout=self._deadline
            )
        found = [await self._found(info) for info in answer.executions]
        return found, encoded(answer.next_page_token)

    async def count(self, chosen: DeadLetterFilter) -> int:
        """How many there are."""
        async with engine_call(self._deadline):
            answer = await self._client.workflow_service.count_workflow_executions(
                CountWorkflowExecutionsRequest(
                    namespace=self._client.namespace, query=query(chosen)
                ),
                retry=True,
                timeout=self._deadline,
            )
        return answer.count

    async def get(self, task_id: str) -> DeadLetterDetail:
        """Everything about one, read from its history.

        Raises:
            DeadLetterNotFound: none of that task waits.
        """
        try:
            async with engine_call(self._deadline):
                info = await self._open(task_id)
                entry = await self._entry(info.execution)
        except RPCError as error:
            raise _not_found(error, task_id) from None
        started, task, plan = moment(info.start_time), entry.task, entry.task.plan
        expires = entry.expires
        return DeadLetterDetail(
            **_item(info, await self._recorder.memo(info.memo)) | {"error": entry.run.error},
            request=request_of(task),
            chosen_by=plan.chosen_by if plan else None,
            attempt_history=entry.run.attempt_history,
            earlier_runs=task.earlier_runs,
            expires_at=None if expires is None else started + timedelta(seconds=expires),
        )

    async def redrive(
        self, task_id: str, order: DeadLetterOrder, run_id: str | None = None
    ) -> Resolved:
        """Run the task again under its id.

        Args:
            task_id: whose dead letter.
            order: why, and who wants it.
            run_id: only this one, not a later one of the same task.

        Raises:
            DeadLetterNotFound: none of that task waits (any more).
            OrderRefused: no route leads anywhere now, or the task is running.
        """
        return await self.resolve(BulkAction.REDRIVE, task_id, order, run_id)

    async def discard(
        self, task_id: str, order: DeadLetterOrder, run_id: str | None = None
    ) -> Resolved:
        """Give the task up.

        Raises:
            DeadLetterNotFound: none of that task waits (any more).
        """
        return await self.resolve(BulkAction.DISCARD, task_id, order, run_id)

    async def resolve(
        self, action: BulkAction, task_id: str, order: DeadLetterOrder, run_id: str | None = None
    ) -> Resolved:
        """Redrive or discard it; arguments and errors as there."""
        handle = self._client.get_workflow_handle(dead_letter_id(task_id), run_id=run_id)
        try:
            async with engine_call(self._deadline):
                resolved: Resolved = await handle.execute_update(
                    action.value, order, result_type=Resolved, rpc_timeout=self._deadline
                )
        except WorkflowUpdateFailedError as error:
            raise _refused(error, task_id) from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise EngineUnavailable(
                "No worker that runs workflows answered in time; the order may yet be carried out"
            ) from None
        except RPCError as error:
            raise _not_found(error, task_id) from None
        return resolved

    async def _open(self, task_id: str) -> WorkflowExecutionInfo:
        record = await self._client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(
                namespace=self._client.namespace,
                execution=WorkflowExecution(workflow_id=dead_letter_id(task_id)),
            ),
            retry=True,
            timeout=self._deadline,
        )
        info = record.workflow_execution_info
        if (
            info.status != WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
            or info.type.name != DEAD_LETTER_WORKFLOW
        ):
            raise DeadLetterNotFound(task_id)
        return info

    async def _entry(self, execution: WorkflowExecution) -> DeadLetterEntry:
        answer = await self._client.workflow_service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=self._client.namespace, execution=execution, maximum_page_size=1
            ),
            retry=True,
            timeout=self._deadline,
        )
        started = answer.history.events[0].workflow_execution_started_event_attributes
        decode = self._client.data_converter.decode
        entry: DeadLetterEntry = (await decode(started.input.payloads, [DeadLetterEntry]))[0]
        return entry

    async def _found(self, info: WorkflowExecutionInfo) -> FoundDeadLetter:
        memo = await self._recorder.memo(info.memo)
        return FoundDeadLetter(
            DeadLetterItem(**_item(info, memo)),
            info.execution.run_id,
            memo.get(MEMO_REPEATABLE, False),
        )


def _item(info: WorkflowExecutionInfo, memo: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a list shows; one that was started by hand may have no memo."""
    attributes = info.search_attributes
    started = moment(info.start_time).isoformat()
    return {
        "task_id": task_id_of(info.execution.workflow_id),
        "agent": value_of(attributes, search_attributes.AGENT),
        "pattern": value_of(attributes, search_attributes.PATTERN),
        "tenant": value_of(attributes, search_attributes.TENANT),
        "priority": value_of(attributes, search_attributes.PRIORITY),
        "batch": value_of(attributes, search_attributes.BATCH),
        "error": memo.get(MEMO_ERROR, ""),
        "error_type": value_of(attributes, search_attributes.ERROR_TYPE),
        "attempts": memo.get(MEMO_ATTEMPTS, 0),
        "runs": memo.get(MEMO_RUNS, 1),
        "created_at": datetime.fromisoformat(memo.get(MEMO_CREATED_AT, started)),
        "failed_at": datetime.fromisoformat(memo.get(MEMO_FAILED_AT, started)),
    }


def query(chosen: DeadLetterFilter) -> str:
    """The engine's list filter for the dead letters that are meant."""
    clauses = [_OPEN]
    for attribute, value in (
        (search_attributes.AGENT, chosen.agent),
        (search_attributes.PATTERN, chosen.pattern),
        (search_attributes.TENANT, chosen.tenant),
        (search_attributes.BATCH, chosen.batch),
        (search_attributes.ERROR_TYPE, chosen.error_type),
    ):
        if value is not None:
            clauses.append(f"{attribute.name} = {quoted(value)}")
    if chosen.priority is not None:
        clauses.append(f"{search_attributes.PRIORITY.name} = {chosen.priority}")
    if chosen.since is not None:
        clauses.append(f"StartTime >= {quoted(chosen.since.astimezone(UTC).isoformat())}")
    if chosen.until is not None:
        clauses.append(f"StartTime < {quoted(chosen.until.astimezone(UTC).isoformat())}")
    return " AND ".join(clauses)


def _refused(error: WorkflowUpdateFailedError, task_id: str) -> Exception:
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return OrderRefused(str(cause), "conflict")
    if cause.type == RESOLVED_BEFORE:
        return DeadLetterNotFound(task_id)
    return OrderRefused(cause.message, "conflict")


def _not_found(error: RPCError, task_id: str) -> Exception:
    return DeadLetterNotFound(task_id) if error.status in _ABSENT else error
