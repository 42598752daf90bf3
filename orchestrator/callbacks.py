"""What travels to, from and about callbacks: the final status of a task, sent to its receiver.

Times of day are UTC, durations are seconds.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from pydantic import Field

from orchestrator.models import Internal, Model, TaskState
from orchestrator.statuses import TaskStatus

CALLBACK_WORKFLOW = "DeliverCallback"
DELIVER_CALLBACK = "deliver_callback"
START_CALLBACKS = "start_callbacks"
CALLBACK_QUEUE = "callbacks"
"""The task queue of deliveries, so that receivers that hang hold up nothing else."""

GONE = "CallbackGone"
"""The receiver answered 410: it wants no more of it."""
REFUSED = "CallbackRefused"
"""The receiver is one that may not be called."""
EXHAUSTED = "CallbackExhausted"
"""Every attempt of the schedule has failed."""

MOST_CALLBACK_SECONDS = 60.0
"""The longest that one attempt may be configured to take (callbacks.timeout)."""
MAX_DATA_BYTES = 1_960_000
"""Of the status as JSON; the engine takes 2 MiB for one input."""

_PREFIX = "callback/"


def callback_id_of(task_id: str, earlier_runs: int = 0) -> str:
    """The callback of a task's run: the first has the task's id, later ones count on."""
    return task_id if earlier_runs == 0 else f"{task_id}~{earlier_runs + 1}"


def callback_workflow_id(callback_id: str) -> str:
    """The workflow id of a callback."""
    return _PREFIX + callback_id


def callback_id_in(workflow_id: str) -> str:
    """The callback that has this workflow id."""
    return workflow_id.removeprefix(_PREFIX)


def message_id(callback_id: str) -> str:
    """The header ``webhook-id``: the callback's id in what headers and signatures take."""
    return quote(callback_id, safe="~").replace(".", "%2E")


class Callback(Internal):
    """The argument of workflow DeliverCallback and activity deliver_callback.

    Args:
        callback_id: the same over all attempts and redeliveries.
        url: of the receiver.
        event: such as ``task.completed``.
        at: when the task ended.
        data: its final status, as GET /status shows it.
    """

    callback_id: str
    url: str
    event: str
    at: datetime
    data: dict[str, Any]

    @property
    def task_id(self) -> str:
        """Of the task that has ended."""
        return str(self.data["task_id"])


def callback_of(url: str, status: TaskStatus, earlier_runs: int = 0) -> Callback:
    """What a task's receiver is told of its end."""
    return Callback(
        callback_id=callback_id_of(status.task_id, earlier_runs),
        url=url,
        event=f"task.{status.status}",
        at=status.updated_at,
        data=data_of(status),
    )


def data_of(status: TaskStatus) -> dict[str, Any]:
    """The status in JSON's terms; a result that is too large for the engine is left out."""
    # A result takes more room in a status than it took alone.
    if len(status.model_dump_json()) > MAX_DATA_BYTES:
        shortened = status.model_copy(update={"result": None})
        return shortened.model_dump(mode="json") | {"result_left_out": True}
    return status.model_dump(mode="json")


class Delivered(Internal):
    """The result of activity deliver_callback: the receiver answered 2xx at that attempt."""

    attempts: int
    status_code: int
    at: datetime


class DeliveryFailure(Internal):
    """What a failed deliver_callback says in the failure's details."""

    attempts: int
    error: str
    status_code: int | None = None
    at: datetime


class CallbackEnd(Internal):
    """The result of workflow DeliverCallback; without ``delivered`` it was discarded."""

    delivered: Delivered | None = None
    reason: str = ""
    by: str = ""


class CallbackOrder(Model):
    """The argument of ``redeliver`` and ``discard``: why, and who wants it."""

    reason: str = Field(default="", max_length=500)
    by: str = Field(default="", max_length=100)


class ItemEnd(Internal):
    """An item of a batch that has ended, and whom that is to be told."""

    position: int
    state: TaskState
    url: str


class ItemCallbacks(Internal):
    """The argument of activity start_callbacks: items of one batch."""

    batch_id: str
    ends: tuple[ItemEnd, ...]


class CallbackState(StrEnum):
    """How far a callback has come; ``dead`` waits to be redelivered or discarded."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    DISCARDED = "discarded"


class CallbackFilter(Internal):
    """What callbacks are selected by; None selects all. Times are those of the task's end."""

    status: CallbackState | None = None
    task_id: str | None = None
    agent: str | None = None
    pattern: str | None = None
    tenant: str | None = None
    batch: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class CallbackItem(Model):
    """A callback as lists show it; fields that say nothing are null."""

    callback_id: str
    task_id: str
    status: CallbackState
    type: str = Field(description="Such as task.completed")
    url: str = Field(description="Of the receiver; its first 500 characters")
    agent: str | None = None
    pattern: str | None = None
    tenant: str | None = None
    batch: str | None = None
    created_at: datetime = Field(description="When it was first to be delivered")
    updated_at: datetime
    error: str | None = Field(default=None, description="Of a dead one: what failed last")
    error_type: str | None = Field(
        default=None, description="Of a dead one: CallbackExhausted, CallbackGone, CallbackRefused"
    )
    status_code: int | None = Field(default=None, description="What the receiver answered last")
    attempts: int | None = None


class CallbackDetail(CallbackItem):
    """The answer of GET /callbacks/{callback_id}."""

    webhook_id: str = Field(description="The header webhook-id of every attempt")
    last_error: str | None = None
    next_attempt_at: datetime | None = None


class CallbackPage(Model):
    """The answer of GET /callbacks."""

    callbacks: tuple[CallbackItem, ...]
    next_cursor: str | None = None
