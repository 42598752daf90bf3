"""What the API answers of tasks and of itself.

Workflows and activities of our own read a task's status too.
"""

from datetime import datetime
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from orchestrator.models import Attempt, BlockedBy, Model, Plan, Run, TaskState


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
    until: datetime | None = Field(
        default=None, description="When what blocks it ends, where that is known"
    )
    progress: Any = Field(
        default=None, description="What an agent that answers later has said last of its progress"
    )
    chosen_by: str | None = Field(default=None, description="How the agent was chosen")
    batch_id: str | None = Field(default=None, description="The batch that it is an item of")
    attempt_history: tuple[Attempt, ...] | None = Field(
        default=None, description="The attempts that have ended, the latest 20"
    )
    dead_letter: bool | None = Field(
        default=None, description="Whether it waits among the dead letters to be run again"
    )
    earlier_runs: tuple[Run, ...] | None = Field(
        default=None, description="The runs before it was redriven"
    )
    trace_id: str | None = Field(
        default=None, description="The trace that it belongs to, where its request named one"
    )

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
    config_version: str = Field(
        default="", description="Differs between processes that go by different configurations"
    )
    agents_healthy: int
    agents_total: int
    active_tasks: int
    queue_size: int
    queues: dict[str, dict[str, int]] = Field(
        default_factory=dict, description="What waits, by agent and priority"
    )


class Probe(Model):
    """The answer of GET /live and GET /ready."""

    status: str
    reason: str | None = None


class Verdict(Model):
    """What admission says of a task: the answer that its submission would get now."""

    admitted: bool
    status_code: int
    detail: str | None = None
    retry_after: int | None = Field(default=None, description="Seconds")


class DryRun(Model):
    """The answer of POST /orchestrate?dry_run=true."""

    plan: Plan
    admission: Verdict
