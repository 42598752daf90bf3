"""What is read of a task's history to tell what happened: inputs, answers, attempts of calls."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from orchestrator.engine.reports import readable
from orchestrator.events import TaskEventKind
from orchestrator.models import Attempt, CallFailure, Dispatch, Internal, Progress, Run, TaskState

SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between looks at a call under way: a quarter of what it has taken until then."""
LONGEST_BACKOFF = 30.0
"""Where the next attempt is known to be later still; an operator may hasten it."""
ENDS = {
    "workflow_execution_completed_event_attributes": TaskEventKind.COMPLETED,
    "workflow_execution_failed_event_attributes": TaskEventKind.FAILED,
    "workflow_execution_timed_out_event_attributes": TaskEventKind.FAILED,
    "workflow_execution_terminated_event_attributes": TaskEventKind.FAILED,
    "workflow_execution_canceled_event_attributes": TaskEventKind.CANCELLED,
}
"""The event that closes a run, and what it tells of the task."""
_KINDS = {
    TaskState.COMPLETED: TaskEventKind.COMPLETED,
    TaskState.FAILED: TaskEventKind.FAILED,
    TaskState.CANCELLED: TaskEventKind.CANCELLED,
}


class _Plan(Internal):
    agent: str
    dispatch: Dispatch = Dispatch.QUEUED


class _Begun(Internal):
    progress: Progress
    accepted: Any = None


class Given(Internal):
    """What is read of a Task."""

    plan: _Plan | None = None
    batch: str | None = None
    earlier_runs: tuple[Run, ...] = ()
    begun: _Begun | None = None


class Asked(Internal):
    """What is read of an AgentCall."""

    agent: str
    progress: Progress | None = None


class Late(Internal):
    """What is read of an AnswerWait."""

    agent: str
    until: datetime | None = None


class Answer(Internal):
    """What is read of an AgentReply."""

    attempt: int
    attempts: tuple[Attempt, ...] = ()


class Marker(Internal):
    """What is read of the SDK's record of an inline call."""

    activity_type: str = ""


@dataclass
class Call:
    """A call that the engine makes, attempt by attempt; ``dispatches`` as far as history tells."""

    event_id: int
    activity_id: str
    agent: str
    begun: Progress
    dispatches: int = 0
    before: Progress | None = None
    """What the dispatches before the last had left."""
    known: dict[int, Attempt] = field(default_factory=dict)

    def learn(self, attempts: tuple[Attempt, ...]) -> None:
        """Take in what is told of its attempts."""
        self.known |= {each.attempt: each for each in attempts if each.agent == self.agent}

    def ended(self, progress: Progress, dispatches: int) -> int:
        """How many attempts of the agent have ended after so many dispatches, lost ones too."""
        begun = self.begun
        left_word = progress.made + progress.waits - begun.made - begun.waits
        return progress.sent + dispatches - left_word


async def has_begun(converter: DataConverter, first: HistoryEvent) -> bool:
    """Whether an item of a batch was tried there, by the first event of its own run."""
    payloads = first.workflow_execution_started_event_attributes.input.payloads
    given = await readable(converter, payloads, Given) if payloads else None
    begun = given.begun if given else None
    return bool(begun and (begun.progress.attempts or begun.accepted))


def kind_of_end(state: TaskState, closing: HistoryEvent) -> TaskEventKind:
    """What the end of a run tells; its result may say more than the event that closed it."""
    return _KINDS.get(state) or ENDS[closing.WhichOneof("attributes") or ""]


def end_of(attempt: Attempt) -> datetime:
    """When an attempt ended."""
    assert attempt.at is not None  # noqa: S101 - the caller has looked
    return datetime.fromtimestamp(attempt.at.timestamp() + attempt.seconds, UTC)


def look_pause(following: datetime, *, under_way: bool) -> float:
    """Seconds until the next look; the latest attempt began at ``following``, or is to begin."""
    passed = (datetime.now(UTC) - following).total_seconds()
    if not under_way and passed < 0:
        return min(max(-passed, SHORTEST_PAUSE), LONGEST_BACKOFF)
    return min(max(passed / 4, SHORTEST_PAUSE), LONGEST_PAUSE)


async def failure_of(converter: DataConverter, failure: Failure) -> CallFailure | None:
    """What a failed attempt has left word of."""
    if not failure.HasField("application_failure_info"):
        return None
    error = await converter.decode_failure(failure)
    details = error.details if isinstance(error, ApplicationError) else ()
    said = details[0] if details else None
    known = isinstance(said, dict) and "progress" in said
    return CallFailure.model_validate(said) if known else None
