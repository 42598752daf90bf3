"""Every payload that crosses a boundary: HTTP, workflow, activity.

All are frozen, refuse unknown fields, and have no defaults that read a clock or chance, since
workflows build them too. Times of day are UTC, durations are seconds.
"""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

MIN_PRIORITY, DEFAULT_PRIORITY, MAX_PRIORITY = 1, 3, 5
DEFAULT_TENANT = "default"
MAX_PATTERN_BYTES = 2000
"""The engine's search attributes hold 2 KiB."""
MAX_TIMEOUT_SECONDS = 30 * 24 * 3600.0

Priority = Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS, allow_inf_nan=False, strict=True)]
# Far beyond any use, and within what the engine and datetime can count.
Duration = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
# The engine's fairness key holds at most 64 bytes.
Tenant = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.@:-]+$")]


class Model(BaseModel):
    """The common rules of all models here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Internal(Model):
    """What our own processes tell each other, which may be of different versions."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Dispatch(StrEnum):
    """How a task's call reaches a worker.

    ``queued``: through the agent's own task queue. ``inline``: within the workflow's own worker.
    """

    QUEUED = "queued"
    INLINE = "inline"


class TaskState(StrEnum):
    """The documented states of a task; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the state never changes again."""
        return self in {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED}


class BlockedBy(StrEnum):
    """What an open task waits for."""

    RETRY_BACKOFF = "retry_backoff"
    PAUSED = "paused"
    CAPACITY = "capacity"
    NO_WORKER = "no_worker"


class RetryPlan(Internal):
    """When the engine repeats a failed attempt: initial, then times backoff, up to the maximum."""

    max_attempts: int = Field(ge=1, le=1_000_000)
    initial_seconds: Duration
    backoff: float = Field(ge=1, le=1e6)
    maximum_seconds: Duration
    jitter: float = Field(ge=0, le=1)
    max_retry_after_seconds: Duration

    @model_validator(mode="after")
    def _ordered(self) -> "RetryPlan":
        if self.maximum_seconds < self.initial_seconds:
            raise ValueError("maximum_seconds is less than initial_seconds")
        return self


class Plan(Internal):
    """A task's route, resolved at admission so that a replay needs no configuration.

    ``endpoint`` is a path on the agent's instances, or a whole URL.
    """

    agent: str
    endpoint: str
    task_queue: str
    dispatch: Dispatch
    attempt_timeout: Duration
    deadline: Duration
    priority: Priority
    retry: RetryPlan
    chosen_by: str


class TaskRequest(Model):
    """The body of POST /orchestrate."""

    pattern: Name | None = Field(default=None, description="Which kind of task this is")
    payload: dict[str, Any] = Field(description="Passed to the agent unchanged")
    capabilities: tuple[Name, ...] = Field(
        default=(),
        max_length=32,
        description="What the agent must be able to do, where no pattern matches",
    )
    priority: Priority | None = Field(
        default=None, description="5 is the most urgent, 1 the least; the rule's priority if absent"
    )
    metadata: dict[str, Any] = Field(default_factory=dict, description="The caller's own notes")
    timeout: Seconds | None = Field(
        default=None, description="Seconds until the task must have ended, all attempts included"
    )
    callback_url: AnyHttpUrl | None = Field(default=None, description="Kept with the task")
    tenant: Tenant = Field(default=DEFAULT_TENANT, description="On whose behalf")

    @model_validator(mode="after")
    def _routable(self) -> "TaskRequest":
        if self.pattern is None and not self.capabilities:
            raise ValueError("name a pattern, or the capabilities that the agent must have")
        if self.pattern and len(json.dumps(self.pattern)) > MAX_PATTERN_BYTES:
            raise ValueError("pattern is too long for the engine's index, written as JSON")
        return self


class Task(TaskRequest):
    """The argument of workflow OrchestrateTask; by hand only pattern and payload are needed."""

    plan: Plan | None = None
    traceparent: str | None = Field(default=None, max_length=128)


class AgentCall(Internal):
    """The argument of activity call_agent."""

    task_id: str
    agent: str
    endpoint: str
    payload: dict[str, Any]
    attempt_timeout: float
    retry: RetryPlan
    traceparent: str | None = None


class AgentReply(Internal):
    """What a successful attempt brought; ``seconds`` is that attempt's duration."""

    result: Any
    instance: str
    status: int
    attempt: int
    seconds: float


class Attempt(Internal):
    """A failed attempt, as the engine keeps it in the failure's details."""

    attempt: int
    instance: str | None
    error_type: str
    seconds: float
    status: int | None = None


class TaskOutcome(Internal):
    """The result of workflow OrchestrateTask; a failed task carries it in its failure's details."""

    agent: str
    result: Any = None
    attempts: int
    execution_time: float | None = None


class TaskStatus(Model):
    """The answer of GET /status/{task_id}; fields that say nothing are left out."""

    task_id: str
    status: TaskState
    agent: str | None = None
    pattern: str | None = None
    priority: int | None = None
    tenant: str | None = None
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    created_at: datetime
    updated_at: datetime
    execution_time: float | None = Field(
        default=None, description="Seconds that the last attempt took, as the worker measured them"
    )
    attempts: int | None = None
    next_attempt_at: datetime | None = None
    last_error: str | None = None
    blocked_by: BlockedBy | None = None

    @model_serializer(mode="wrap")
    def _without_blanks(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        given = self.model_fields_set
        # An agent may answer null, which is a result.
        return {
            name: value
            for name, value in fields.items()
            if value is not None or (name == "result" and name in given)
        }


class TaskPage(Model):
    """The answer of GET /tasks."""

    tasks: tuple[TaskStatus, ...]
    next_cursor: str | None = None


class Health(Model):
    """The answer of GET /health."""

    status: str
    timestamp: datetime
    version: str
    agents_healthy: int
    agents_total: int
    active_tasks: int
    queue_size: int
