"""Every payload of a task that crosses a boundary: HTTP, workflow, activity.

What the API answers is in statuses.py, what goes with a late answer in late_models.py.
All are frozen, refuse unknown fields, and have no defaults that read a clock or chance, since
workflows build them too. Times of day are UTC, durations are seconds.
"""

import json
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, model_validator

from orchestrator.values import Duration, Name, Priority, Seconds, Tenant

DEFAULT_TENANT = "default"
MAX_PATTERN_BYTES = 2000
"""The engine's search attributes hold 2 KiB."""
DEADLINE_EXCEEDED = "DeadlineExceeded"
"""The error type of a task whose time was up."""


class Model(BaseModel):
    """The common rules of all models here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Internal(Model):
    """What our own processes tell each other, which may be of different versions."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Dispatch(StrEnum):
    """How a task's call reaches a worker.

    ``queued``: through the agent's own task queue. ``inline``: within the workflow's own worker.
    ``coalesced``: with others that are handed in at the same moment, in one batch.
    """

    QUEUED = "queued"
    INLINE = "inline"
    COALESCED = "coalesced"


class Completion(StrEnum):
    """What an agent's 202 means.

    ``callback``: its answer is posted to the call's completion URL. ``poll``: it is to be had at
    the 202's ``Location``. ``none``: the 202 is the answer, as any other 2xx is.
    """

    CALLBACK = "callback"
    POLL = "poll"
    NONE = "none"


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

    BREAKER = "breaker"
    RATE_LIMIT = "rate_limit"
    RETRY_BACKOFF = "retry_backoff"
    PAUSED = "paused"
    CAPACITY = "capacity"
    NO_WORKER = "no_worker"
    ANSWER = "answer"
    """The agent has taken the call, and answers later."""


class LimitMode(StrEnum):
    """What happens to a request over the limit: refused, or accepted and called later."""

    REJECT = "reject"
    QUEUE = "queue"


class RateLimit(Internal):
    """A token bucket: ``rate`` calls a minute, ``burst`` of them at once after a pause."""

    rate: float = Field(gt=0)
    burst: int = Field(ge=1)
    mode: LimitMode


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


class LateRule(Internal):
    """How an agent may answer later, where its rule says anything of it; times are seconds.

    Args:
        completion: what its 202 means.
        answer_timeout: from the 202 until the answer; without it, until the task's deadline.
        progress_timeout: the longest that it may say nothing meanwhile.
        poll_interval: between looks at its ``Location``, where it does not say otherwise.
    """

    completion: Completion = Completion.CALLBACK
    answer_timeout: Duration | None = None
    progress_timeout: Duration | None = None
    poll_interval: Duration = 5.0


class Route(Internal):
    """An agent and how it is called: ``endpoint`` is a path on its instances, or a whole URL."""

    agent: str
    endpoint: str
    task_queue: str
    idempotent: bool = True


class Plan(Route):
    """A task's route, resolved at admission so that a replay needs no configuration.

    The route of its own comes first, the ``fallbacks`` follow in their order. ``dead_letter`` says
    whether the task becomes one when it can be tried no more, ``dead_letter_expires`` for how many
    seconds; ``events`` whether what happens to it is told to the broker.
    """

    dispatch: Dispatch
    attempt_timeout: Duration
    deadline: Duration
    priority: Priority
    retry: RetryPlan
    chosen_by: str
    fairness_weight: float = Field(default=1.0, ge=0.001, le=1000)
    fallbacks: tuple[Route, ...] = ()
    dead_letter: bool = False
    dead_letter_expires: Duration | None = None
    late: LateRule | None = None
    events: bool = False

    @property
    def routes(self) -> tuple[Route, ...]:
        """The agents that may be called, the chosen one first."""
        return (self, *self.fallbacks)


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
    callback_url: AnyHttpUrl | None = Field(
        default=None,
        description="Told of the task's end: its final status by POST, signed (docs/callbacks.md)",
    )
    tenant: Tenant = Field(default=DEFAULT_TENANT, description="On whose behalf")

    @model_validator(mode="after")
    def _routable(self) -> "TaskRequest":
        if self.pattern is None and not self.capabilities:
            raise ValueError("name a pattern, or the capabilities that the agent must have")
        if self.pattern and len(json.dumps(self.pattern)) > MAX_PATTERN_BYTES:
            raise ValueError("pattern is too long for the engine's index, written as JSON")
        return self


class Attempt(Internal):
    """One attempt that was made: ``outcome`` is ``success`` or the call error's type."""

    attempt: int
    agent: str
    instance: str | None
    outcome: str
    seconds: float
    status: int | None = None
    at: datetime | None = None
    error: str | None = None


class Run(Internal):
    """A course of a task that ended without success, before the task was run again."""

    error: str
    error_type: str
    attempts: int
    ended_at: datetime
    attempt_history: tuple[Attempt, ...] = ()


class Progress(Internal):
    """How far a call has come, as each attempt hands it to the next by the engine.

    Args:
        sent: attempts at this agent that ended, the latest of them in ``attempts``.
        made: those of them that count towards the most that are allowed.
        waits: the other dispatches by the engine: the agent was not available, as was known before
            or as a trial call found, or the worker was stopped.
        attempts: of every agent that was tried for this task, in their order.
    """

    sent: int = 0
    made: int = 0
    waits: int = 0
    attempts: tuple[Attempt, ...] = ()


class Accepted(Internal):
    """What is left of a call that an agent took with 202, to answer it later.

    Args:
        answer_id: what its answer is called in the engine: ``<agent>.<attempt>.<random>``.
        progress: the attempts until then; the latest is the one that it took.
        location: where the answer is polled; None where it is posted.
        pause: seconds that the agent asked to wait before the first look.
    """

    answer_id: str
    progress: Progress
    location: str | None = None
    pause: float | None = None

    @property
    def attempt(self) -> Attempt:
        """The attempt that the agent took."""
        return self.progress.attempts[-1]


class Begun(Internal):
    """What was tried for a task before its workflow began: at its plan's agent, in a batch.

    The next attempt comes ``pause`` seconds later; none where the agent has ``accepted`` one.
    """

    progress: Progress
    pause: float = 0
    accepted: Accepted | None = None


class ReplyTo(Internal):
    """Where the broker brings the result: a queue (RabbitMQ) or stream (Redis), and the mark."""

    to: str = Field(min_length=1, max_length=255)
    correlation_id: str | None = Field(default=None, max_length=255)


class Task(TaskRequest):
    """The argument of workflow OrchestrateTask; by hand only pattern and payload are needed.

    ``batch`` is the batch that it is an item of, in which it ``waited`` so many seconds that count
    towards its deadline. ``reply`` is where somebody waits for its final status at the broker.
    """

    plan: Plan | None = None
    traceparent: str | None = Field(default=None, max_length=128)
    earlier_runs: tuple[Run, ...] = ()
    batch: str | None = Field(default=None, max_length=1000)
    waited: float = Field(default=0, ge=0, allow_inf_nan=False)
    begun: Begun | None = None
    reply: ReplyTo | None = None


class AgentCall(Internal):
    """The argument of activity call_agent.

    ``progress`` is what went before this activity: attempts of another agent, or made inline; the
    first attempt of this one then comes ``pause`` seconds after it was asked for. ``wait`` says
    what to do while the agent is not available: wait for it, or fail for another to be called.
    ``events`` says that the broker is told of its attempts.
    """

    task_id: str
    agent: str
    endpoint: str
    payload: dict[str, Any]
    attempt_timeout: float
    retry: RetryPlan
    traceparent: str | None = None
    idempotent: bool = True
    progress: Progress | None = None
    pause: float = 0
    wait: bool = True
    late: LateRule | None = None
    events: bool = False


class CallFailure(Internal):
    """What a failed call_agent tells the workflow and GET /status, in the failure's details.

    ``retryable`` says that another attempt may succeed, ``pause`` after how many seconds;
    ``exhausted`` that there will be none, since all attempts of this agent were made. ``attempts``
    counts those, with the ones whose worker was lost.
    """

    progress: Progress
    attempts: int = 0
    retryable: bool = False
    exhausted: bool = False
    pause: float | None = None
    blocked_by: BlockedBy | None = None


class AgentReply(Internal):
    """What a successful attempt brought; ``seconds`` is that attempt's duration.

    There is no result yet where the agent has only ``accepted`` the call.
    """

    result: Any
    instance: str
    status: int
    attempt: int
    seconds: float
    attempts: tuple[Attempt, ...] = ()
    accepted: Accepted | None = None


class TaskOutcome(Internal):
    """The result of workflow OrchestrateTask; a failed task carries it in its failure's details."""

    agent: str
    result: Any = None
    attempts: int
    execution_time: float | None = None
    attempt_history: tuple[Attempt, ...] = ()
    dead_letter: bool = False


class PriorityChange(Model):
    """The body of POST /tasks/{task_id}/priority."""

    priority: Priority = Field(description="5 is the most urgent, 1 the least")
