"""What the API answers of an aggregate."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from orchestrator.models import Model


class AggregateState(StrEnum):
    """``failed``: the condition can hold no more, or the deadline passed before it did."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ResultItem(Model):
    """One result in an aggregate."""

    task_id: str
    agent: str | None = None
    result: Any = None
    execution_time: float | None = None
    left_out: bool = Field(
        default=False, description="The result is too large to stand here; GET /status has it"
    )

    @model_serializer(mode="wrap")
    def _without_blanks(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if not self.left_out:
            fields.pop("left_out", None)
        return fields


class ErrorItem(Model):
    """One task of an aggregate that ended without success."""

    task_id: str
    agent: str | None = None
    error: str
    error_type: str | None = None


class Conflict(Model):
    """Two results that a deep merge could not join: the value of the earlier one was kept."""

    path: str = Field(description="JSON pointer into the merged document")
    task_id: str = Field(description="Whose value was left out")


class AggregateStatus(Model):
    """The answer of POST /aggregate and GET /aggregate/{aggregate_id}."""

    aggregate_id: str
    status: AggregateState
    total_tasks: int
    completed: int
    failed: int
    cancelled: int
    pending: int
    results: tuple[ResultItem, ...] = ()
    errors: tuple[ErrorItem, ...] = ()
    merged: Any = None
    conflicts: tuple[Conflict, ...] = ()
    reason: str | None = Field(default=None, description="Why it is failed or cancelled")
    note: str | None = Field(default=None, description="What is left out here, and where it is")
    created_at: datetime
    updated_at: datetime
    tenant: str | None = Field(default=None, description="Whose it is")
