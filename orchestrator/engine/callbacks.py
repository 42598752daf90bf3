"""Callbacks in the engine: start, list, look up, redeliver, discard."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import PendingActivityInfo, WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest
from temporalio.client import (
    Client,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.callbacks import (
    CALLBACK_WORKFLOW,
    Callback,
    CallbackDetail,
    CallbackEnd,
    CallbackFilter,
    CallbackItem,
    CallbackOrder,
    CallbackPage,
    CallbackState,
    DeliveryFailure,
    callback_id_in,
    callback_workflow_id,
    message_id,
)
from orchestrator.engine import search_attributes
from orchestrator.engine.histories import Histories, WorkflowNotFound
from orchestrator.engine.listing import decoded, encoded, quoted
from orchestrator.engine.record import Recorder, moment
from orchestrator.engine.rpc import engine_call
from orchestrator.engine.search_attributes import value_of
from orchestrator.errors import CallbackNotFound, EngineUnavailable, OrderRefused
from orchestrator.routing import WORKFLOW_QUEUE

MEMO_TASK = "task_id"
MEMO_TYPE = "type"
MEMO_URL = "url"
MEMO_CREATED_AT = "created_at"
MEMO_FAILURE = "failure"
"""A DeliveryFailure: what a dead callback failed of last."""
URL_CHARACTERS = 500
"""Of the receiver's URL, as lists show it: the engine's memo is to stay small."""

DISCARDED = "CallbackDiscarded"
"""What search attribute ``OrchestratorErrorType`` says of one that was given up."""
ENDED_BEFORE = "CallbackEnded"
"""The type of a refusal: somebody was faster."""

_TURN_BYTES = 64
_RUNNING = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
_COMPLETED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
_CONTINUED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW
_ERROR = search_attributes.ERROR_TYPE.name
_CLAUSES = {
    CallbackState.PENDING: f"ExecutionStatus = 'Running' AND {_ERROR} IS NULL",
    CallbackState.DEAD: f"ExecutionStatus = 'Running' AND {_ERROR} IS NOT NULL",
    CallbackState.DELIVERED: f"ExecutionStatus = 'Completed' AND {_ERROR} IS NULL",
    CallbackState.DISCARDED: "(ExecutionStatus IN ('Canceled', 'Terminated', 'Failed', 'TimedOut')"
    f" OR (ExecutionStatus = 'Completed' AND {_ERROR} IS NOT NULL))",
}


class Callbacks:
    """The engine's callbacks, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer. Looking needs no worker;
    redelivering and discarding need one that runs workflows.
    """

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)
        self._histories = Histories(client, rpc_timeout)
        self._recorder = Recorder(client.data_converter)

    async def start(self, callback: Callback, *, again: bool = False) -> bool:
        """Have it delivered, durably.

        Args:
            callback: that is told.
            again: also if it was delivered, or given up, before.

        Returns:
            Whether that was not begun before.
        """
        try:
            async with engine_call(self._deadline):
                await self._client.start_workflow(
                    CALLBACK_WORKFLOW,
                    callback,
                    id=callback_workflow_id(callback.callback_id),
                    task_queue=WORKFLOW_QUEUE,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE
                    if again
                    else WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    memo=memo_of(callback),
                    search_attributes=attributes_of(callback),
                    static_summary=summary_of(callback),
                    rpc_timeout=self._deadline,
                )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def page(
        self, chosen: CallbackFilter, size: int, cursor: str | None = None
    ) -> CallbackPage:
        """One page, newest first. Lists lag behind what happens by some 100 ms.

        Raises:
            InvalidCursor: the cursor is not one of ours.
        """
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
        found = [
            CallbackItem(**_item(info, await self._recorder.memo(info.memo)))
            for info in answer.executions
        ]
        return CallbackPage(callbacks=tuple(found), next_cursor=encoded(answer.next_page_token))

    async def get(self, callback_id: str) -> CallbackDetail:
        """Everything about one but what it says.

        Raises:
            CallbackNotFound: none of that id is known.
        """
        described = await self._described(callback_id)
        info = described.workflow_execution_info
        fields = _item(info, await self._recorder.memo(info.memo))
        fields["webhook_id"] = message_id(callback_id)
        if described.pending_activities:
            fields |= await self._pending(described.pending_activities[0])
        elif info.status == _COMPLETED:
            fields |= await self._ended(info)
        return CallbackDetail(**fields)

    async def _described(self, callback_id: str) -> Any:
        try:
            described = await self._histories.describe(callback_workflow_id(callback_id))
        except WorkflowNotFound:
            raise CallbackNotFound(callback_id) from None
        if described.workflow_execution_info.type.name != CALLBACK_WORKFLOW:
            raise CallbackNotFound(callback_id)
        return described

    async def _pending(self, activity: PendingActivityInfo) -> dict[str, Any]:
        """How far one that is being delivered has come."""
        fields: dict[str, Any] = {"attempts": activity.attempt - 1}
        if activity.HasField("last_attempt_complete_time"):
            fields["updated_at"] = moment(activity.last_attempt_complete_time)
        if activity.HasField("next_attempt_schedule_time"):
            fields["next_attempt_at"] = moment(activity.next_attempt_schedule_time)
        if activity.HasField("last_failure"):
            error = await self._client.data_converter.decode_failure(activity.last_failure)
            fields["last_error"] = getattr(error, "message", str(error))
            details = error.details if isinstance(error, ApplicationError) else ()
            if details:
                failure = DeliveryFailure.model_validate(details[0])
                fields["status_code"] = failure.status_code
        return fields

    async def _ended(self, info: WorkflowExecutionInfo) -> dict[str, Any]:
        """How it was delivered."""
        event = await self._histories.closing_event(info.execution.workflow_id, 0)
        if event is None:
            return {}
        payloads = event.workflow_execution_completed_event_attributes.result.payloads
        end: CallbackEnd = (await self._client.data_converter.decode(payloads, [CallbackEnd]))[0]
        if end.delivered is None:
            return {"last_error": f"Discarded {end.by}: {end.reason}".replace(" :", ":")}
        return {"attempts": end.delivered.attempts, "status_code": end.delivered.status_code}

    async def redeliver(self, callback_id: str, order: CallbackOrder) -> CallbackDetail:
        """Deliver it now, with the same webhook-id: a dead one, one that pauses, one that was.

        Raises:
            CallbackNotFound: none of that id is known.
            OrderRefused: somebody gave it up at this moment.
        """
        described = await self._described(callback_id)
        if described.workflow_execution_info.status in {_RUNNING, _CONTINUED}:
            await self._update("redeliver", callback_id, order)
        else:
            first = await self._histories.first(described.workflow_execution_info.execution)
            started = first.workflow_execution_started_event_attributes
            converter = self._client.data_converter
            [callback] = await converter.decode(started.input.payloads, [Callback])
            await self.start(callback, again=True)
        return await self.get(callback_id)

    async def discard(self, callback_id: str, order: CallbackOrder) -> CallbackDetail:
        """Give it up: nothing is sent any more. One that has ended stays as it is.

        Raises:
            CallbackNotFound: none of that id is known.
        """
        described = await self._described(callback_id)
        if described.workflow_execution_info.status in {_RUNNING, _CONTINUED}:
            with suppress(OrderRefused):
                await self._update("discard", callback_id, order)
        return await self.get(callback_id)

    async def _update(self, name: str, callback_id: str, order: CallbackOrder) -> None:
        handle = self._client.get_workflow_handle(callback_workflow_id(callback_id))
        try:
            async with engine_call(self._deadline):
                await handle.execute_update(name, order, rpc_timeout=self._deadline)
        except WorkflowUpdateFailedError as error:
            raise OrderRefused(str(error.cause), "conflict") from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise EngineUnavailable(
                "No worker that runs workflows answered in time; the order may yet be carried out"
            ) from None
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise OrderRefused("It has ended at this moment", "conflict") from None
            raise


def memo_of(callback: Callback) -> dict[str, Any]:
    """What lists show of a callback beside its search attributes."""
    return {
        MEMO_TASK: callback.task_id,
        MEMO_TYPE: callback.event,
        MEMO_URL: callback.url[:URL_CHARACTERS],
        MEMO_CREATED_AT: callback.at.isoformat(),
    }


def attributes_of(callback: Callback) -> TypedSearchAttributes:
    """What a callback is found by: as its task, where that has it."""
    told = callback.data
    pairs: list[SearchAttributePair[str] | SearchAttributePair[int]] = [
        SearchAttributePair(key, told[name])
        for key, name in (
            (search_attributes.AGENT, "agent"),
            (search_attributes.PATTERN, "pattern"),
            (search_attributes.TENANT, "tenant"),
            (search_attributes.BATCH, "batch_id"),
        )
        if told.get(name) is not None
    ]
    if told.get("priority") is not None:
        pairs.append(SearchAttributePair(search_attributes.PRIORITY, told["priority"]))
    return TypedSearchAttributes(pairs)


def summary_of(callback: Callback) -> str:
    """The one line that stands for a callback: without what its URL may keep secret."""
    return f"{callback.event} → {urlsplit(callback.url).hostname}"[:200]


def receiver_turn(url: str) -> Priority:
    """Receivers take turns, so that one that hangs does not have all workers wait for it."""
    host = (urlsplit(url).hostname or "").encode()[:_TURN_BYTES].decode(errors="ignore")
    return Priority(fairness_key=host)


def query(chosen: CallbackFilter) -> str:
    """The engine's list filter for the callbacks that are meant."""
    clauses = [f"WorkflowType = '{CALLBACK_WORKFLOW}'"]
    if chosen.status is not None:
        clauses.append(_CLAUSES[chosen.status])
    if chosen.task_id is not None:
        first = quoted(callback_workflow_id(chosen.task_id))
        later = quoted(callback_workflow_id(chosen.task_id) + "~")
        clauses.append(f"(WorkflowId = {first} OR WorkflowId STARTS_WITH {later})")
    for attribute, value in (
        (search_attributes.AGENT, chosen.agent),
        (search_attributes.PATTERN, chosen.pattern),
        (search_attributes.TENANT, chosen.tenant),
        (search_attributes.BATCH, chosen.batch),
    ):
        if value is not None:
            clauses.append(f"{attribute.name} = {quoted(value)}")
    if chosen.since is not None:
        clauses.append(f"StartTime >= {quoted(chosen.since.astimezone(UTC).isoformat())}")
    if chosen.until is not None:
        clauses.append(f"StartTime < {quoted(chosen.until.astimezone(UTC).isoformat())}")
    return " AND ".join(clauses)


def _item(info: WorkflowExecutionInfo, memo: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a list shows; one that was started by hand may have no memo."""
    attributes = info.search_attributes
    started = moment(info.start_time)
    state = _state(info.status, value_of(attributes, search_attributes.ERROR_TYPE))
    dead = state is CallbackState.DEAD
    failure = DeliveryFailure.model_validate(memo[MEMO_FAILURE]) if MEMO_FAILURE in memo else None
    callback_id = callback_id_in(info.execution.workflow_id)
    fields = {
        "callback_id": callback_id,
        "task_id": memo.get(MEMO_TASK, callback_id),
        "status": state,
        "type": memo.get(MEMO_TYPE, ""),
        "url": memo.get(MEMO_URL, ""),
        "agent": value_of(attributes, search_attributes.AGENT),
        "pattern": value_of(attributes, search_attributes.PATTERN),
        "tenant": value_of(attributes, search_attributes.TENANT),
        "batch": value_of(attributes, search_attributes.BATCH),
        "created_at": datetime.fromisoformat(memo.get(MEMO_CREATED_AT, started.isoformat())),
        "updated_at": moment(info.close_time) if info.HasField("close_time") else started,
    }
    if dead and failure is not None:
        fields |= {
            "error": failure.error,
            "error_type": value_of(attributes, search_attributes.ERROR_TYPE),
            "attempts": failure.attempts,
            "status_code": failure.status_code,
            "updated_at": failure.at,
        }
    return fields


def _state(status: int, error_type: str | None) -> CallbackState:
    if status in {_RUNNING, _CONTINUED}:
        return CallbackState.DEAD if error_type else CallbackState.PENDING
    if status == _COMPLETED and not error_type:
        return CallbackState.DELIVERED
    return CallbackState.DISCARDED
