"""What travels to, from and about dead letters: tasks that failed for good and may be run again.

Times of day are UTC, durations are seconds.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from orchestrator.call_errors import AgentUnreachable
from orchestrator.models import Attempt, Internal, Model, Plan, Run, Task, TaskRequest
from orchestrator.selection import FilterText, ManyRequest, Moment, Selection
from orchestrator.values import Flag

DEAD_LETTER_WORKFLOW = "DeadLetter"
BULK_WORKFLOW = "RedriveDeadLetters"
KEPT_RUNS = 10
"""How many earlier runs a task carries along; the attempts only of the latest."""
AUTOMATIC_RUNS = 10
"""A task that failed so often is redriven by people only: it may be what breaks its agent."""
MAX_ERROR_CHARACTERS = 4000
MAX_EARLIER_ERROR_CHARACTERS = 500
MAX_LISTED_ERROR_CHARACTERS = 300
OUTLINED_RUNS = 5
MAX_OUTLINED_ERROR_CHARACTERS = 150
"""What GET /status shows of earlier runs has to fit into the 2 KiB of a memo."""

_PREFIX = "dead-letter/"
_BULK_PREFIX = "redrive/"
RedriveRate = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False, strict=True)]


def dead_letter_id(task_id: str) -> str:
    """The workflow id of a task's dead letter."""
    return _PREFIX + task_id


def task_id_of(workflow_id: str) -> str:
    """The task whose dead letter has this workflow id."""
    return workflow_id.removeprefix(_PREFIX)


def bulk_id(redrive_id: str) -> str:
    """The workflow id of an order about many dead letters."""
    return _BULK_PREFIX + redrive_id


class DeadLetterEntry(Internal):
    """The argument of workflow DeadLetter: everything that running the task again takes.

    Args:
        task: as it was started.
        run: how it ended.
        memo: what its workflow carried beside its input.
        created_at: when the task was first submitted.
        agent: that it was routed to.
        expires: after so many seconds it is given up; None keeps it.
    """

    task: Task
    run: Run
    memo: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    agent: str
    expires: float | None = None


class DeadLetterOrder(Model):
    """The argument of ``redrive`` and ``discard``: why, and who wants it."""

    reason: str = Field(default="", max_length=500)
    by: str = Field(default="", max_length=100)


class Resolution(StrEnum):
    """How a dead letter ended."""

    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    EXPIRED = "expired"


class Resolved(Internal):
    """The result of workflow DeadLetter."""

    resolution: Resolution
    reason: str = ""
    by: str = ""


class DeadLetterFilter(Selection):
    """What dead letters are selected by; None selects all. Times are those of the failure."""

    error_type: FilterText | None = Field(default=None, description="Such as AgentFailed")
    since: Moment | None = Field(default=None, description="Failed at or after")
    until: Moment | None = Field(default=None, description="Failed before")


class DeadLetterItem(Model):
    """A dead letter as lists show it."""

    task_id: str
    agent: str | None = None
    pattern: str | None = None
    tenant: str | None = None
    priority: int | None = None
    batch: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="The batch that it is an item of",
    )
    error: str
    error_type: str | None = None
    attempts: int
    runs: int = Field(description="How often the task has failed, redrives included")
    created_at: datetime
    failed_at: datetime


class DeadLetterPage(Model):
    """The answer of GET /dead-letters."""

    dead_letters: tuple[DeadLetterItem, ...]
    next_cursor: str | None = None


class DeadLetterDetail(DeadLetterItem):
    """The answer of GET /dead-letters/{task_id}."""

    request: dict[str, Any] = Field(description="As the task was submitted")
    chosen_by: str | None = Field(default=None, description="How the agent was chosen")
    attempt_history: tuple[Attempt, ...] = ()
    earlier_runs: tuple[Run, ...] = ()
    expires_at: datetime | None = None


class BulkAction(StrEnum):
    """What is done to many dead letters."""

    REDRIVE = "redrive"
    DISCARD = "discard"


class BulkRequest(ManyRequest):
    """The body of POST /dead-letters/redrive and /discard."""

    EVERYTHING: ClassVar[str] = "every dead letter"

    filter: DeadLetterFilter = DeadLetterFilter()
    all: Flag = Field(default=False, description="Every dead letter, where no field selects")
    rate: RedriveRate | None = Field(default=None, description="So many a second at most")


class BatchRedrive(Model):
    """The body of POST /batches/{batch_id}/redrive."""

    rate: RedriveRate | None = Field(default=None, description="So many a second at most")
    dry_run: Flag = Field(default=False, description="Only count")
    reason: str = Field(default="", max_length=500)
    by: str = Field(default="", max_length=100)


class BulkOrder(Internal):
    """The argument of workflow RedriveDeadLetters and activity redrive_many.

    Only dead letters that are there when it starts are meant; ``matched`` were counted then, and
    ``rate`` a second are resolved.
    """

    action: BulkAction
    filter: DeadLetterFilter
    rate: RedriveRate
    reason: str = ""
    by: str = ""
    matched: int = 0


class RedriveAgent(Internal):
    """The argument of activity redrive_agent: ``rate`` a second of the agent's dead letters."""

    agent: str
    rate: RedriveRate


class BulkTally(Internal):
    """How far an order about many has come.

    ``failed`` were refused, the last of them for ``last_failure``; ``skipped`` were resolved by
    somebody else meanwhile, or are not to be redriven without a person's word.
    """

    matched: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    last_failure: str = ""
    cancelled: bool = False


class BulkState(StrEnum):
    """Whether an order about many is still being carried out."""

    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class BulkStatus(Model):
    """The answer of GET /dead-letters/redrives/{redrive_id}."""

    redrive_id: str
    action: BulkAction
    state: BulkState
    matched: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    last_failure: str | None = None
    tenant: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Whose dead letters are meant",
    )


class BulkMatch(Model):
    """The answer to a dry run: how many are meant now."""

    action: BulkAction
    matched: int
    dry_run: bool = True


class Discarded(Model):
    """The answer of POST /dead-letters/{task_id}/discard."""

    task_id: str
    resolution: Resolution


def runs_after(earlier: Iterable[Run], run: Run) -> tuple[Run, ...]:
    """A task's earlier runs with one more, cut so that however many redrives stay small.

    The latest keeps its attempts; of those before it only how they ended is kept.
    """
    before = [
        each.model_copy(
            update={
                "attempt_history": (),
                "error": cut(each.error, MAX_EARLIER_ERROR_CHARACTERS),
            }
        )
        for each in earlier
    ]
    return (*before, shortened(run))[-KEPT_RUNS:]


def shortened(run: Run) -> Run:
    """The run with errors of bounded length: agents may say much."""
    attempts = tuple(
        each.model_copy(update={"error": cut(each.error, MAX_EARLIER_ERROR_CHARACTERS)})
        if each.error
        else each
        for each in run.attempt_history
    )
    error = cut(run.error, MAX_ERROR_CHARACTERS)
    return run.model_copy(update={"error": error, "attempt_history": attempts})


def outlined(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The latest runs in JSON's terms, small enough for a memo."""
    latest = [
        each.model_copy(
            update={
                "attempt_history": (),
                "error": cut(each.error, MAX_OUTLINED_ERROR_CHARACTERS),
            }
        )
        for each in runs[-OUTLINED_RUNS:]
    ]
    return [each.model_dump(mode="json", exclude_defaults=True) for each in latest]


def is_repeatable(plan: Plan, run: Run) -> bool:
    """Whether it does no harm to make the run's calls again.

    An agent that is not idempotent may have got a request, unless none ever reached it.
    """
    return all(route.idempotent for route in plan.routes) or (
        run.error_type == AgentUnreachable.__name__
        and all(each.outcome == AgentUnreachable.__name__ for each in run.attempt_history)
    )


def cut(text: str, characters: int) -> str:
    """The text, ending in an ellipsis where it would be longer."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def request_of(task: Task) -> dict[str, Any]:
    """The task as it was submitted, in JSON's terms."""
    return task.model_dump(mode="json", include=set(TaskRequest.model_fields), exclude_unset=True)
