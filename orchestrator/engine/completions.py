"""Late answers: what an agent posts ends the activity that its task waits in, or shows progress.

Needs no worker: the engine itself takes the answer, and keeps it until one goes on with the task.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import AsyncActivityCancelledError, AsyncActivityHandle, Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.batches import place_of
from orchestrator.call_errors import AgentFailed, AgentRejected
from orchestrator.completions import Ticket
from orchestrator.engine.histories import Histories, WorkflowNotFound
from orchestrator.engine.record import STATES, Recorder
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import CompletionEarly, CompletionRefused
from orchestrator.late_models import LateAnswer, LateFailure
from orchestrator.routing import AWAIT_ANSWER, POLL_ANSWER

PATIENCE_SECONDS = 5.0
"""How long an answer waits for its task that has not yet written down that the agent took it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_LATE = {AWAIT_ANSWER, POLL_ANSWER}


class Completions:
    """Late answers for the engine's tasks, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine does not answer, CompletionRefused when
    the task does not wait for this answer any more, and CompletionEarly when it does not yet.
    """

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)
        self._histories = Histories(client, rpc_timeout)
        self._recorder = Recorder(client.data_converter)

    async def complete(self, ticket: Ticket, answer: LateAnswer) -> None:
        """The agent has done its work.

        Raises:
            PayloadTooLarge: the engine would refuse the answer.
        """
        await self._deliver(
            ticket, lambda handle: handle.complete(answer, rpc_timeout=self._deadline)
        )

    async def fail(self, ticket: Ticket, message: str, failure: LateFailure) -> None:
        """The agent has not done its work; whether it may be asked again, the failure says."""
        kind = AgentFailed if failure.retryable else AgentRejected
        error = ApplicationError(message, failure, type=kind.__name__, non_retryable=True)
        await self._deliver(ticket, lambda handle: handle.fail(error, rpc_timeout=self._deadline))

    async def progress(self, ticket: Ticket, said: object) -> None:
        """The agent is at work; GET /status shows what it said last."""

        async def beat(handle: AsyncActivityHandle) -> None:
            activity = await self._waiting(ticket)
            known = activity and await self._recorder.late_progress(activity)
            details = [known.model_copy(update={"said": said})] if known else []
            await handle.heartbeat(*details, rpc_timeout=self._deadline)

        await self._deliver(ticket, beat)

    async def _deliver(
        self, ticket: Ticket, act: Callable[[AsyncActivityHandle], Awaitable[None]]
    ) -> None:
        handle = self._client.get_async_activity_handle(
            workflow_id=ticket.task_id, run_id=None, activity_id=ticket.answer_id
        )
        end, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
        while True:
            try:
                async with engine_call(self._deadline):
                    await act(handle)
            except AsyncActivityCancelledError:
                raise CompletionRefused(_over(ticket, "was cancelled")) from None
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
            else:
                return
            # Either it is over, or the answer is faster than what leads to its wait.
            await self._waiting(ticket)
            if time.monotonic() >= end:
                raise CompletionEarly(ticket.task_id)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _waiting(self, ticket: Ticket) -> PendingActivityInfo | None:
        """What waits for the answer; None where nothing does yet.

        Raises:
            CompletionRefused: nothing will.
        """
        try:
            record = await self._histories.describe(ticket.task_id)
        except WorkflowNotFound:
            if place_of(ticket.task_id):
                return None  # an item that its chunk is yet to hand over
            raise CompletionRefused(_over(ticket, "is not known any more")) from None
        state = STATES.get(record.workflow_execution_info.status)
        if state is not None:
            raise CompletionRefused(_over(ticket, f"has ended ({state})"))
        for activity in record.pending_activities:
            if activity.activity_id == ticket.answer_id:
                started = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
                return activity if activity.state == started else None
            if activity.activity_type.name in _LATE or await self._has_gone_on(ticket, activity):
                raise CompletionRefused(_over(ticket, "has gone on without it"))
        return None

    async def _has_gone_on(self, ticket: Ticket, activity: PendingActivityInfo) -> bool:
        """Whether the call under way comes after the one that the ticket was for."""
        progress = await self._recorder.progress(activity)
        made = {(each.agent, each.attempt) for each in progress.attempts}
        return ticket.attempt in made


def _over(ticket: Ticket, what: str) -> str:
    return (
        f"This completion URL was used, or is not waited for any more: task '{ticket.task_id}' "
        f"{what}"
    )
