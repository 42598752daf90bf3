"""What happens to tasks and agents, as CloudEvents 1.0, and the replies that somebody waits for.

An event's id is made of what it is about, so it is the same however often it is sent.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from pydantic import Field

from orchestrator.models import Internal, ReplyTo, TaskState

PUBLISH_WORKFLOW = "PublishEvents"
CONTENT_TYPE = "application/cloudevents+json"
UNTOLD = {"result", "attempt_history", "earlier_runs", "last_error", "next_attempt_at"}
"""Fields of a final status that its event leaves out: large, or for whoever asks for the task."""


class EventType(StrEnum):
    """The types of events; with the agent's name behind, each is a routing key."""

    QUEUED = "task.queued"
    STARTED = "task.started"
    RETRYING = "task.retrying"
    COMPLETED = "task.completed"
    FAILED = "task.failed"
    CANCELLED = "task.cancelled"
    DEAD_LETTERED = "task.dead_lettered"
    AGENT_CHANGED = "agent.state_changed"


ENDS = {
    TaskState.COMPLETED: EventType.COMPLETED,
    TaskState.FAILED: EventType.FAILED,
    TaskState.CANCELLED: EventType.CANCELLED,
}


class Event(Internal):
    """One event: ``subject`` is the task's id, or the agent of ``agent.state_changed``."""

    type: EventType
    id: str
    at: datetime
    subject: str
    agent: str
    data: dict[str, Any]
    traceparent: str | None = None

    @classmethod
    def of_task(
        cls,
        kind: EventType,
        task_id: str,
        run: str,
        agent: str,
        at: datetime,
        data: dict[str, Any],
        *,
        number: int | None = None,
        traceparent: str | None = None,
    ) -> "Event":
        """An event of a task's ``run``; ``number`` tells those of one type apart."""
        parts = (kind.value, task_id, run, *(() if number is None else (str(number),)))
        return cls(
            type=kind,
            id="/".join(parts),
            at=at,
            subject=task_id,
            agent=agent,
            data={"task_id": task_id, "agent": agent, **data},
            traceparent=traceparent,
        )

    @property
    def routing_key(self) -> str:
        """Its topic: ``task.completed.<agent>``."""
        return f"{self.type.value}.{self.agent}"

    def document(self, source: str) -> dict[str, Any]:
        """The event in the structured mode of CloudEvents' JSON format."""
        found: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": source,
            "type": self.type.value,
            "subject": self.subject,
            "time": self.at.isoformat(),
            "datacontenttype": "application/json",
            "data": self.data,
        }
        return found if self.traceparent is None else {**found, "traceparent": self.traceparent}


class Answer(Internal):
    """A reply: the final status of a task that came by a message."""

    reply: ReplyTo
    id: str
    body: dict[str, Any]


class News(Internal):
    """The argument of what sends events and replies."""

    events: tuple[Event, ...] = ()
    answers: tuple[Answer, ...] = Field(default=())

    def plus(self, other: "News") -> "News":
        """Both together."""
        return News(events=self.events + other.events, answers=self.answers + other.answers)


def source_of(name: str) -> str:
    """The ``source`` of the events of an orchestrator of that name (``agent.name``)."""
    return f"/{quote(name, safe='')}"
