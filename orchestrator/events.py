"""What live streams tell: events of one task, and snapshots of batches and aggregates."""

import re
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from orchestrator.models import Attempt
from orchestrator.statuses import TaskStatus

IN_BATCH = "batch"
"""Stands for the run in the ids of events that an item met within its batch."""

_ID = re.compile(
    r"(?P<run>[A-Za-z0-9-]{1,64}):(?P<event>\d{1,9})(?:\.(?P<attempt>\d{0,9})(?P<waits>w?))?"
)
_NONE = -1


class TaskEventKind(StrEnum):
    """What may happen to a task; the last three end it, until it is redriven."""

    QUEUED = "task.queued"
    STARTED = "task.started"
    RETRYING = "task.retrying"
    WAITING = "task.waiting"
    DEAD_LETTERED = "task.dead_lettered"
    COMPLETED = "task.completed"
    FAILED = "task.failed"
    CANCELLED = "task.cancelled"


class TaskEvent(TaskStatus):
    """The data of an event: the task's status then, and what has changed."""

    event: TaskEventKind
    attempt: Attempt | None = Field(default=None, description="The attempt that has failed")


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """Where an event stands in one run of a task: it sorts as things happened.

    Args:
        event: the number of the history event that tells it, or that asked for the call it is of.
        attempt: of that call, which writes no history event of its own; 0 is its beginning.
        waits: after that attempt, since the agent takes no call.
    """

    event: int
    attempt: int = _NONE
    waits: bool = False

    def __str__(self) -> str:
        """As it stands in an event's id."""
        if self.attempt == _NONE and not self.waits:
            return str(self.event)
        number = "" if self.attempt == _NONE else self.attempt
        return f"{self.event}.{number}{'w' if self.waits else ''}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """An event of a task as its id names it: the run, and where in it."""

    run: str
    at: Moment

    @classmethod
    def of(cls, event_id: str) -> "Cursor | None":
        """What an id names; None where it is not one of a task's event."""
        found = _ID.fullmatch(event_id)
        if found is None:
            return None
        attempt = found["attempt"]
        at = Moment(int(found["event"]), int(attempt) if attempt else _NONE, bool(found["waits"]))
        return cls(found["run"], at)

    def __str__(self) -> str:
        """The id."""
        return f"{self.run}:{self.at}"


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One event of a stream: its id, its name, its data as JSON; ``cursor`` of a task's."""

    id: str
    name: str
    data: str
    cursor: Cursor | None = None


def live(
    cursor: Cursor, kind: TaskEventKind, status: TaskStatus, attempt: Attempt | None = None
) -> LiveEvent:
    """An event of a task; ``status`` is what it was then."""
    given = {name: getattr(status, name) for name in status.model_fields_set}
    given = {name: value for name, value in given.items() if name in TaskStatus.model_fields}
    event = TaskEvent(**given, event=kind, attempt=attempt)
    return LiveEvent(str(cursor), kind, event.model_dump_json(), cursor)
