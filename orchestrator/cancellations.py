"""What travels to and from orders to cancel many tasks, which the engine carries out itself."""

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field, model_validator

from orchestrator.models import Model
from orchestrator.selection import ManyRequest, Moment, Selection
from orchestrator.values import Flag

_PREFIX = "cancellation/"


def job_id(order_id: str) -> str:
    """The engine's id of the batch operation that carries out an order."""
    return _PREFIX + order_id


class CancellationFilter(Selection):
    """Which open tasks are meant; None selects all. Times are those of the task's start."""

    since: Moment | None = Field(default=None, description="Started at or after")
    until: Moment | None = Field(default=None, description="Started before")

    @model_validator(mode="before")
    @classmethod
    def _without_status(cls, given: Any) -> Any:
        if isinstance(given, dict) and "status" in given:
            raise ValueError(
                "status cannot select: every open task that the other fields select is cancelled, "
                "whether it waits or runs"
            )
        return given


class CancellationRequest(ManyRequest):
    """The body of POST /tasks/cancel."""

    EVERYTHING: ClassVar[str] = "every open task"

    filter: CancellationFilter = CancellationFilter()
    all: Flag = Field(default=False, description="Every open task, where no field selects")


class CancellationState(StrEnum):
    """Whether an order to cancel many is still being carried out."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


class CancellationStatus(Model):
    """The answer of GET /tasks/cancellations/{order_id}."""

    order_id: str
    state: CancellationState
    matched: int = Field(description="So many tasks are meant")
    done: int = Field(
        default=0,
        description="So many were asked to end; until the order is completed, so many have ended",
    )
    failed: int = Field(default=0, description="So many could not be asked")
    tenant: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Whose tasks are meant",
    )


class CancellationMatch(Model):
    """The answer to a dry run: how many are meant now."""

    matched: int
    dry_run: bool = True
