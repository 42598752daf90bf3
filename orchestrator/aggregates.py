"""What travels to, from and about aggregates: many tasks, joined into one answer.

Times of day are UTC, durations are seconds.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from orchestrator.batches import MAX_ITEMS, Batch, batch_id_of, item_id
from orchestrator.models import Internal, Model, TaskRequest, TaskState
from orchestrator.values import Seconds, WithoutNul

AGGREGATE_WORKFLOW = "AggregateTasks"
JOIN_TASKS = "join_tasks"
"""The activity that watches tasks: JoinWatch to JoinReport."""
CANCEL_TASKS = "cancel_tasks"
"""The activity that asks tasks to end: TaskSet to nothing."""
REDRIVE_TASKS = "redrive_tasks"
"""The activity that redrives what has failed: TaskSet to a JoinReport that opens them again."""
REDRIVE = "redrive"
"""The signal that redrives the failed tasks and joins them again."""

DEFAULT_DEADLINE = 3600.0
"""Seconds, for those that name none."""
REPORT_BYTES = 1_500_000
"""Of JSON that one report holds, and the result of the workflow."""

_PREFIX = "aggregate/"

TaskId = Annotated[WithoutNul, Field(min_length=1, max_length=500)]


def size_of(model: Model) -> int:
    """Bytes of the JSON that a model travels as."""
    return len(model.model_dump_json(exclude_unset=True).encode())


def aggregate_workflow_id(aggregate_id: str) -> str:
    """The workflow id of an aggregate that the API started; one started by hand has its own."""
    return _PREFIX + aggregate_id


def aggregate_id_of(workflow_id: str) -> str:
    """The aggregate that a workflow is, whoever started it."""
    return workflow_id.removeprefix(_PREFIX)


class AtLeast(Model):
    """``{"at_least": k}``: so many tasks have completed."""

    at_least: int = Field(ge=1, le=MAX_ITEMS, strict=True)


class MaxFailedPercent(Model):
    """``{"max_failed_percent": p}``: all have ended, and no more than p percent without success."""

    max_failed_percent: float = Field(ge=0, le=100, allow_inf_nan=False, strict=True)


class Simple(StrEnum):
    """``all``: every task has ended, however. ``any``: one has completed."""

    ALL = "all"
    ANY = "any"


def _kind_of(join: Any) -> str | None:
    """Which of the conditions is meant, so that a mistake is told of that one alone."""
    for kind in (AtLeast, MaxFailedPercent):
        [name] = kind.model_fields
        if isinstance(join, kind) or (isinstance(join, dict) and name in join):
            return name
    return "name" if isinstance(join, str) and join in set(Simple) else None


Join = Annotated[
    Annotated[Simple, Tag("name")]
    | Annotated[AtLeast, Tag("at_least")]
    | Annotated[MaxFailedPercent, Tag("max_failed_percent")],
    Discriminator(
        _kind_of,
        custom_error_type="join",
        custom_error_message=(
            'Input should be "all", "any", {"at_least": k} or {"max_failed_percent": p}'
        ),
    ),
]


class OnMet(StrEnum):
    """What becomes of the tasks that are still open when the condition holds."""

    LEAVE = "leave"
    CANCEL_REST = "cancel_rest"


class OnFailure(StrEnum):
    """What becomes of the others when a task ends without success."""

    CONTINUE = "continue"
    CANCEL_REST = "cancel_rest"


class Merge(StrEnum):
    """What is made of the results beside their list."""

    LIST = "list"
    BY_AGENT = "by_agent"
    DEEP_MERGE = "deep_merge"
    FIRST = "first"


class AggregatePolicy(Model):
    """How tasks are joined.

    Args:
        join: the condition.
        deadline: seconds after which the join ends with what there is.
        on_met, on_failure: what becomes of the others.
        merge: what is made of the results.
    """

    join: Join = Simple.ALL
    deadline: Seconds | None = None
    on_met: OnMet = OnMet.LEAVE
    on_failure: OnFailure = OnFailure.CONTINUE
    merge: Merge = Merge.LIST


class AggregateRequest(AggregatePolicy):
    """The body of POST /aggregate: tasks that exist, tasks to be started, or both."""

    task_ids: tuple[TaskId, ...] = Field(default=(), max_length=MAX_ITEMS)
    tasks: tuple[TaskRequest, ...] = Field(default=(), max_length=MAX_ITEMS)

    @model_validator(mode="after")
    def _not_empty(self) -> "AggregateRequest":
        if not self.task_ids and not self.tasks:
            raise ValueError("name task_ids, give tasks, or both")
        return self


class Counts(Internal):
    """How many of the joined tasks are in which state; ``failed`` includes the unknown ones."""

    total: int
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def pending(self) -> int:
        """How many have not ended."""
        return self.total - self.completed - self.lost

    @property
    def lost(self) -> int:
        """How many have ended without success."""
        return self.failed + self.cancelled

    def with_ends(self, states: Iterable[TaskState]) -> "Counts":
        """The same with some more that have ended."""
        ends = list(states)
        return Counts(
            total=self.total,
            completed=self.completed + ends.count(TaskState.COMPLETED),
            failed=self.failed + ends.count(TaskState.FAILED),
            cancelled=self.cancelled + ends.count(TaskState.CANCELLED),
        )

    def with_fewer_failed(self, number: int) -> "Counts":
        """The same with so many failed ones open again."""
        return self.model_copy(update={"failed": self.failed - number})


class FanOut(Internal):
    """The tasks that an aggregate has started itself: a batch of that id, with so many items."""

    batch_id: str
    total: int


class Carried(Internal):
    """What one run of an aggregate hands to the next.

    Args:
        counts: until now.
        open: positions of the tasks that have not ended.
        failed: positions of those that have failed.
        deadline: when the join ends.
        redriven: whether some were redriven.
    """

    counts: Counts
    open: tuple[int, ...]
    failed: tuple[int, ...] = ()
    deadline: datetime
    redriven: bool = False


class Aggregation(Internal):
    """The argument of workflow AggregateTasks; by hand it looks like an AggregateRequest.

    The tasks have positions: first ``task_ids``, each once, then those that it starts.

    Args:
        task_ids: of tasks that exist, in any state.
        tasks: that are started first, as a batch, and joined with the others.
        batch: the same as ``tasks``, routed already.
        fan_out: the same, started already, by an earlier run.
        join, deadline, on_met, on_failure, merge: as in AggregatePolicy.
        redrive: redrive those that have failed before joining them again.
        created_at: when it was asked for.
        carried: of the run that this one carries on.
        tenant: whose it is; None is several's.
        knows_only: the tasks of all other tenants are as unknown to it as those that never were.
    """

    task_ids: tuple[TaskId, ...] = Field(default=(), max_length=MAX_ITEMS)
    tasks: tuple[TaskRequest, ...] = Field(default=(), max_length=MAX_ITEMS)
    batch: Batch | None = None
    fan_out: FanOut | None = None
    join: Join = Simple.ALL
    deadline: Seconds | None = None
    on_met: OnMet = OnMet.LEAVE
    on_failure: OnFailure = OnFailure.CONTINUE
    merge: Merge = Merge.LIST
    redrive: bool = False
    created_at: datetime | None = None
    carried: Carried | None = None
    tenant: str | None = None
    knows_only: str | None = None

    @property
    def policy(self) -> AggregatePolicy:
        """How the tasks are joined."""
        return AggregatePolicy(
            join=self.join,
            deadline=self.deadline,
            on_met=self.on_met,
            on_failure=self.on_failure,
            merge=self.merge,
        )

    @property
    def to_start(self) -> int:
        """How many tasks it starts."""
        return len(self.tasks) + (
            len(self.batch.items or self.batch.tasks or ()) if self.batch else 0
        )


def fan_out_of(given: Aggregation, workflow_id: str, first_run_id: str) -> FanOut | None:
    """The batch of an aggregate's own tasks, started or not; None where it has none.

    Args:
        given: the aggregate's argument.
        workflow_id: of the aggregate.
        first_run_id: of the chain of runs that ``given`` began; a later one under the same id
            starts other tasks.
    """
    if given.fan_out is not None or not given.to_start:
        return given.fan_out
    seed = uuid.uuid5(uuid.NAMESPACE_URL, f"{workflow_id}/{first_run_id}")
    return FanOut(batch_id=batch_id_of(seed), total=given.to_start)


def joined_ids(given: Aggregation, fan_out: FanOut | None) -> tuple[str, ...]:
    """The ids of all its tasks in the order of their positions."""
    named = dict.fromkeys(given.task_ids)
    started = (item_id(fan_out.batch_id, n) for n in range(fan_out.total)) if fan_out else ()
    return (*named, *started)


def redrive_of(given: Aggregation, fan_out: FanOut | None) -> Aggregation:
    """The argument by which an aggregate that has ended runs again, its failed tasks redriven."""
    again = {"tasks": (), "batch": None, "fan_out": fan_out, "redrive": True, "carried": None}
    return given.model_copy(update=again)


class TaskSet(Internal):
    """Some of an aggregate's tasks: their ids and positions, in the same order.

    ``knows_only`` is the tenant whose tasks alone are known.
    """

    task_ids: tuple[str, ...]
    positions: tuple[int, ...]
    knows_only: str | None = None


class JoinWatch(TaskSet):
    """The argument of activity join_tasks: the tasks that have not ended, as far as is known.

    ``counts`` is what the others came to, ``batch_id`` names the batch that the aggregate started.
    """

    counts: Counts
    policy: AggregatePolicy
    batch_id: str | None = None


class Joined(Internal):
    """How one of the joined tasks ended.

    Args:
        position: in the aggregate.
        task_id: its id.
        state: completed, failed or cancelled.
        known: False where there is no such task.
        result, agent, error, error_type, execution_time, dead_letter: as in its status.
        at: when it ended.
        left_out: its result is too large to travel with the others.
    """

    position: int
    task_id: str
    state: TaskState
    known: bool = True
    agent: str | None = None
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    execution_time: float | None = None
    at: datetime | None = None
    dead_letter: bool = False
    left_out: bool = False


class JoinReport(Internal):
    """What has become of some tasks since the report before.

    Args:
        outcomes: of those that have ended.
        reopened: positions of those whose ends count no more, since they were redriven.
        refusal: why the aggregate's own batch has taken none of its tasks, if it has not.
    """

    outcomes: tuple[Joined, ...] = ()
    reopened: tuple[int, ...] = ()
    refusal: str | None = None
