"""One run of a task as events: by its history, and by what the engine tells of the call under way.

A call that is repeated writes no history event until it has ended. What its attempts came to stands
in what each hands to the next, in its failures and in its answer. All of these tell the same, so an
event has the same place whether it was seen as it happened or is read much later.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.converter import DataConverter

from orchestrator.dead_letters import DEAD_LETTER_WORKFLOW
from orchestrator.engine.record import Recorder, moment
from orchestrator.engine.reports import readable
from orchestrator.engine.run_reading import (
    ENDS,
    SHORTEST_PAUSE,
    Answer,
    Asked,
    Call,
    Given,
    Late,
    Marker,
    end_of,
    failure_of,
    kind_of_end,
    look_pause,
)
from orchestrator.events import Cursor, LiveEvent, Moment, TaskEventKind, live
from orchestrator.models import Attempt, BlockedBy, Dispatch, Progress, TaskState
from orchestrator.routing import AWAIT_ANSWER, POLL_ANSWER
from orchestrator.statuses import TaskStatus

CALL_AGENT = "call_agent"
NO_WORD = "No word is left of this attempt: its worker was lost, or it is long ago"

_UNDER_WAY = {
    PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
    PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED,
}

M = TypeVar("M", bound=BaseModel)


class RunEvents:
    """The events of one run, each once and in order.

    Args:
        converter: of the engine's payloads.
        described: the run.
        last: of the events that were told before; those up to it are left out.
    """

    def __init__(
        self,
        converter: DataConverter,
        described: DescribeWorkflowExecutionResponse,
        last: Moment | None = None,
    ) -> None:
        self.run_id = described.workflow_execution_info.execution.run_id
        self.last = last or Moment(0)
        self.closing: HistoryEvent | None = None
        """The run's last event, which ``end`` turns into that of the task."""
        self._converter = converter
        self._recorder = Recorder(converter)
        self._info = described.workflow_execution_info
        self._agent: str | None = None
        self._call: Call | None = None
        self._held: tuple[int, str, Attempt | None, str] | None = None
        """An attempt that was the last of its call; another call may follow."""
        self._told: set[tuple[str, int]] = set()
        """The attempts that were followed by another, by agent and number."""
        self._next_look: float | None = None

    @property
    def pause(self) -> float | None:
        """Seconds until it is worth looking at the call under way; None while there is none."""
        return None if self._call is None else self._next_look or SHORTEST_PAUSE

    async def take(self, event: HistoryEvent) -> list[LiveEvent]:
        """What the next event of the history tells."""
        kind = event.WhichOneof("attributes") or ""
        if kind in ENDS:
            self.closing = event
            return []
        handle = getattr(self, f"_on_{kind.removesuffix('_event_attributes')}", None)
        return await handle(event) if handle else []

    async def look(self, described: DescribeWorkflowExecutionResponse) -> list[LiveEvent]:
        """What the engine tells of the call under way."""
        self._info, call = described.workflow_execution_info, self._call
        for each in described.pending_activities:
            if call is not None and each.activity_id == call.activity_id:
                return await self._pending(call, each)
        self._next_look = SHORTEST_PAUSE
        return []

    async def end(self, described: DescribeWorkflowExecutionResponse) -> list[LiveEvent]:
        """How the run has ended."""
        closing = self.closing
        assert closing is not None  # noqa: S101 - the caller has looked
        status = await self._recorder.closed_status(described.workflow_execution_info, closing)
        kind = kind_of_end(status.status, closing)
        return list(self._tell(Moment(closing.event_id), kind, status))

    async def _on_workflow_execution_started(self, event: HistoryEvent) -> list[LiveEvent]:
        started = event.workflow_execution_started_event_attributes
        given = await self._read(started.input.payloads, Given) or Given()
        at, told = moment(event.event_time), list[LiveEvent]()
        # An item of a batch has waited there.
        if not given.batch or given.earlier_runs:
            told += await self._news(Moment(1), TaskEventKind.QUEUED, TaskState.QUEUED, at)
        if given.plan is None:
            return told
        if given.begun:
            self._agent = given.plan.agent
            for each in given.begun.progress.attempts:
                told += await self._retrying(
                    Moment(1, each.attempt), each.attempt, each.agent, each
                )
        elif given.plan.dispatch is Dispatch.INLINE:
            told += await self._started(1, given.plan.agent, at)
        return told

    async def _on_activity_task_scheduled(self, event: HistoryEvent) -> list[LiveEvent]:
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name in {AWAIT_ANSWER, POLL_ANSWER}:
            return await self._answers_later(event)
        asked = await self._read(scheduled.input.payloads, Asked)
        if scheduled.activity_type.name != CALL_AGENT or asked is None:
            return []
        begun = asked.progress or Progress()
        self._hold_late(begun)
        told = await self._release(event)
        self._call = Call(event.event_id, scheduled.activity_id, asked.agent, begun)
        self._next_look = SHORTEST_PAUSE
        return told

    async def _answers_later(self, event: HistoryEvent) -> list[LiveEvent]:
        """The agent has taken the call with 202."""
        scheduled = event.activity_task_scheduled_event_attributes
        late = await self._read(scheduled.input.payloads, Late)
        return await self._news(
            Moment(event.event_id),
            TaskEventKind.WAITING,
            TaskState.RUNNING,
            moment(event.event_time),
            agent=late.agent if late else self._agent,
            blocked_by=BlockedBy.ANSWER,
            until=late.until if late else None,
        )

    def _hold_late(self, progress: Progress) -> None:
        """Of a late answer that failed only the call that follows it tells."""
        last = progress.attempts[-1] if progress.attempts else None
        if self._held is None and last and (last.agent, last.attempt) not in self._told:
            self._held = last.attempt, last.agent, last, last.error or ""

    async def _on_activity_task_started(self, event: HistoryEvent) -> list[LiveEvent]:
        started, call = event.activity_task_started_event_attributes, self._call
        if call is None or started.scheduled_event_id != call.event_id:
            return []
        call.dispatches = started.attempt
        failure = await failure_of(self._converter, started.last_failure)
        if failure is not None:
            call.before = failure.progress
            call.learn(failure.progress.attempts)
        began = call.known.get(call.begun.sent + 1)
        at = began.at if began and began.at else moment(event.event_time)
        return await self._started(call.event_id, call.agent, at)

    async def _on_activity_task_completed(self, event: HistoryEvent) -> list[LiveEvent]:
        completed = event.activity_task_completed_event_attributes
        call = self._ending(completed.scheduled_event_id)
        answer = await self._read(completed.result.payloads, Answer) if call else None
        if call is None or answer is None:
            return []
        call.learn(answer.attempts)
        return await self._retried(call, answer.attempt - 1)

    async def _on_activity_task_failed(self, event: HistoryEvent) -> list[LiveEvent]:
        failed = event.activity_task_failed_event_attributes
        call = self._ending(failed.scheduled_event_id)
        if call is None:
            return []
        said = await failure_of(self._converter, failed.failure)
        if said is None:
            return await self._retried(call, self._ended_before(call))
        call.learn(said.progress.attempts)
        kind, last = failed.failure.application_failure_info.type, call.known.get(said.attempts)
        if last is None or last.outcome != kind:
            # Its last dispatch made no attempt: all there were had been followed by another.
            return await self._retried(call, said.attempts)
        told = await self._retried(call, said.attempts - 1)
        self._held = said.attempts, call.agent, last, failed.failure.message
        return told

    async def _on_activity_task_timed_out(self, event: HistoryEvent) -> list[LiveEvent]:
        late = event.activity_task_timed_out_event_attributes
        call = self._ending(late.scheduled_event_id)
        if call is None:
            return []
        said = await failure_of(self._converter, late.failure.cause)
        if said is None:
            return await self._retried(call, self._ended_before(call))
        call.learn(said.progress.attempts)
        begins = list[LiveEvent]()
        if said.attempts > call.begun.sent:
            first = call.known.get(call.begun.sent + 1)
            at = first.at if first and first.at else moment(event.event_time)
            begins = await self._started(call.event_id, call.agent, at)
        return begins + await self._retried(call, said.attempts)

    async def _on_activity_task_canceled(self, event: HistoryEvent) -> list[LiveEvent]:
        cancelled = event.activity_task_canceled_event_attributes
        call = self._ending(cancelled.scheduled_event_id)
        return await self._retried(call, self._ended_before(call)) if call else []

    async def _on_marker_recorded(self, event: HistoryEvent) -> list[LiveEvent]:
        """An inline call, of one attempt."""
        marker = event.marker_recorded_event_attributes
        about = await self._read(marker.details["data"].payloads, Marker)
        if about is None or about.activity_type != CALL_AGENT:
            return []
        told = await self._release(event)
        if not marker.HasField("failure"):
            answer = await self._read(marker.details["result"].payloads, Answer)
            made = answer.attempts[-1] if answer and answer.attempts else None
        else:
            said = await failure_of(self._converter, marker.failure)
            made = said.progress.attempts[-1] if said and said.progress.attempts else None
            if made and made.outcome == marker.failure.application_failure_info.type:
                self._held = made.attempt, made.agent, made, marker.failure.message
        if made is not None:
            at = made.at or moment(event.event_time)
            told += await self._started(event.event_id, made.agent, at)
        return told

    async def _on_child_workflow_execution_started(self, event: HistoryEvent) -> list[LiveEvent]:
        child = event.child_workflow_execution_started_event_attributes
        if child.workflow_type.name != DEAD_LETTER_WORKFLOW:
            return []
        at = moment(event.event_time)
        return await self._news(
            Moment(event.event_id),
            TaskEventKind.DEAD_LETTERED,
            TaskState.RUNNING,
            at,
            dead_letter=True,
        )

    async def _pending(self, call: Call, activity: PendingActivityInfo) -> list[LiveEvent]:
        failure = await failure_of(self._converter, activity.last_failure)
        progress = await self._read(activity.heartbeat_details.payloads, Progress)
        progress = progress or (failure.progress if failure else call.begun)
        call.learn(progress.attempts)
        under_way = activity.state in _UNDER_WAY
        ended = call.ended(progress, activity.attempt - 1)
        told, at = list[LiveEvent](), moment(activity.last_started_time)
        if under_way or ended > call.begun.sent:
            first = call.known.get(call.begun.sent + 1)
            told += await self._started(
                call.event_id, call.agent, first.at if first and first.at else at
            )
        following = at
        if not under_way:
            backs_off = activity.HasField("next_attempt_schedule_time")
            following = moment(
                activity.next_attempt_schedule_time if backs_off else activity.scheduled_time
            )
        told += await self._retried(call, ended, following, activity.last_failure.message)
        self._next_look = look_pause(following, under_way=under_way)
        if not under_way and failure and failure.blocked_by not in {None, BlockedBy.RETRY_BACKOFF}:
            told += await self._waiting(call, ended, failure.blocked_by, following)
        return told

    async def _started(self, event_id: int, agent: str, at: datetime) -> list[LiveEvent]:
        """The first call of an agent, unless it was the last that was called before."""
        if agent == self._agent:
            return []
        self._agent = agent
        return await self._news(
            Moment(event_id, 0), TaskEventKind.STARTED, TaskState.RUNNING, at, agent=agent
        )

    async def _retried(
        self, call: Call, ended: int, following: datetime | None = None, message: str = ""
    ) -> list[LiveEvent]:
        """The attempts of a call up to that one, after each of which there was another."""
        told = list[LiveEvent]()
        for number in range(call.begun.sent + 1, ended + 1):
            self._told.add((call.agent, number))
            at, after = Moment(call.event_id, number), call.known.get(number + 1)
            if at > self.last:
                again = after.at if after else (following if number == ended else None)
                attempt = call.known.get(number)
                lost = message if number == ended and attempt is None else ""
                told += await self._retrying(at, number, call.agent, attempt, again, lost)
        return told

    async def _retrying(
        self,
        at: Moment,
        number: int,
        agent: str,
        attempt: Attempt | None,
        following: datetime | None = None,
        message: str = "",
    ) -> list[LiveEvent]:
        self._told.add((agent, number))
        error = (attempt and attempt.error) or message or NO_WORD
        ended = moment(self._info.start_time)
        if attempt is not None and attempt.at is not None:
            ended = end_of(attempt)
        fields = {
            "agent": agent,
            "attempts": number,
            "attempt": attempt,
            "last_error": error,
            "next_attempt_at": following,
        }
        return await self._news(at, TaskEventKind.RETRYING, TaskState.RUNNING, ended, **fields)

    async def _waiting(
        self, call: Call, ended: int, blocked: BlockedBy | None, until: datetime | None
    ) -> list[LiveEvent]:
        tried = ended > call.begun.sent
        at = (
            Moment(call.event_id, ended, waits=True) if tried else Moment(call.event_id, waits=True)
        )
        state = TaskState.RUNNING if ended else TaskState.QUEUED
        return await self._news(
            at,
            TaskEventKind.WAITING,
            state,
            datetime.now(UTC),
            agent=call.agent,
            attempts=ended,
            blocked_by=blocked,
            until=until,
        )

    async def _release(self, event: HistoryEvent) -> list[LiveEvent]:
        """After the last attempt of a call there comes another call."""
        held, self._held = self._held, None
        if held is None:
            return []
        number, agent, attempt, message = held
        at = moment(event.event_time)
        return await self._retrying(Moment(event.event_id), number, agent, attempt, at, message)

    def _ending(self, event_id: int) -> Call | None:
        """The call that has ended, if it is that one."""
        call = self._call
        if call is None or call.event_id != event_id:
            return None
        self._call = None
        return call

    def _ended_before(self, call: Call) -> int:
        """How many attempts had ended before the last dispatch, of which nothing is known."""
        dispatches = max(0, call.dispatches - 1)
        return call.ended(call.before or call.begun, dispatches)

    async def _news(
        self, at: Moment, kind: TaskEventKind, state: TaskState, when: datetime, **fields: Any
    ) -> list[LiveEvent]:
        head = await self._recorder.head(self._info)
        status = head.model_copy(
            update={"status": state, "updated_at": when, "earlier_runs": None} | fields
        )
        return list(self._tell(at, kind, status, fields.get("attempt")))

    def _tell(
        self, at: Moment, kind: TaskEventKind, status: TaskStatus, attempt: Attempt | None = None
    ) -> Iterator[LiveEvent]:
        if at > self.last:
            self.last = at
            yield live(Cursor(self.run_id, at), kind, status, attempt)

    async def _read(self, payloads: Any, kind: type[M]) -> M | None:
        found: list[Payload] = list(payloads)
        return await readable(self._converter, found, kind) if found else None
