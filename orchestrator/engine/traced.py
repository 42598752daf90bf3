"""Spans of workflows and of their calls, without a word of them in any history.

A workflow's span is made once it has ended, by whoever takes its last step and not by a replay; its
id is that of its run, so that its calls are its children long before.
"""

import asyncio
from datetime import datetime
from typing import Any

from opentelemetry import context as otel
from opentelemetry.trace import SpanContext, SpanKind
from temporalio import activity, client, worker, workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from orchestrator.batches import Batch, Chunk
from orchestrator.engine.run_events import CALL_AGENT
from orchestrator.models import AgentCall, Task, TaskState
from orchestrator.routing import WORKFLOW_TYPE
from orchestrator.telemetry.spans import Spans, failed, within

_BATCH = "orchestrator.batch_id"


class Traced(client.Interceptor, worker.Interceptor):
    """To be given to the client, whose workers it then serves."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def intercept_activity(
        self,
        next: worker.ActivityInboundInterceptor,  # noqa: A002 - the base's name
    ) -> worker.ActivityInboundInterceptor:
        """Around calls of agents."""
        return _TracedActivities(next, self._spans)

    def workflow_interceptor_class(
        self,
        input: worker.WorkflowInterceptorClassInput,  # noqa: A002 - the base's name
    ) -> type[worker.WorkflowInboundInterceptor]:
        """Around tasks and batches."""
        del input
        spans = self._spans

        class Bound(_TracedWorkflows):
            def __init__(self, next: worker.WorkflowInboundInterceptor) -> None:  # noqa: A002
                super().__init__(next)
                self.spans = spans

        return Bound


class _TracedActivities(worker.ActivityInboundInterceptor):
    def __init__(self, next: worker.ActivityInboundInterceptor, spans: Spans) -> None:  # noqa: A002
        super().__init__(next)
        self._spans = spans

    async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:  # noqa: A002
        info, argument = activity.info(), input.args[0] if input.args else None
        if isinstance(argument, AgentCall):
            task_id, agent = argument.task_id, argument.agent
        elif isinstance(argument, Chunk) and argument.traceparent:
            task_id, agent = argument.batch_id, argument.plan.agent
        else:
            return await super().execute_activity(input)
        run, _ = self._spans.run_of(info.workflow_run_id or "", task_id, argument.traceparent)
        name = f"{info.activity_type} {agent}"
        attributes: dict[str, str | int] = {
            "orchestrator.agent": agent,
            "orchestrator.task_id" if info.activity_type == CALL_AGENT else _BATCH: task_id,
            "temporal.workflow.run_id": info.workflow_run_id or "",
            "temporal.activity.attempt": info.attempt,
        }
        with self._spans.span(name, SpanKind.INTERNAL, within(run), attributes) as span:
            try:
                return await super().execute_activity(input)
            except ApplicationError as error:
                failed(span, error.type or type(error).__name__)
                raise


class _TracedWorkflows(worker.WorkflowInboundInterceptor):
    spans: Spans

    async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> Any:  # noqa: A002
        info, argument = workflow.info(), input.args[0] if input.args else None
        if isinstance(argument, Task) and info.workflow_type == WORKFLOW_TYPE:
            named = {"orchestrator.task_id": info.workflow_id}
        elif isinstance(argument, Batch) and argument.traceparent:
            named = {_BATCH: argument.batch_id or info.workflow_id}
        else:
            return await super().execute_workflow(input)
        task_id = info.workflow_id
        run, parent = self.spans.run_of(info.run_id, task_id, argument.traceparent)
        # The workflow's log lines name it.
        otel.attach(within(run))
        try:
            result = await super().execute_workflow(input)
        except (FailureError, asyncio.CancelledError) as raised:
            self._tell(info, run, parent, named, _kind(raised))
            raise
        except workflow.ContinueAsNewError:
            self._tell(info, run, parent, named, None)
            raise
        self._tell(info, run, parent, named, None)
        return result

    def _tell(
        self,
        info: workflow.Info,
        run: SpanContext,
        parent: otel.Context,
        named: dict[str, str],
        error: str | None,
    ) -> None:
        # Also where the workflow is only put out of memory, as the SDK has it.
        if workflow.unsafe.is_replaying():
            return
        times: tuple[datetime, datetime] = (info.workflow_start_time, workflow.now())
        attributes = {**named, "temporal.workflow.run_id": info.run_id}
        attributes["temporal.workflow.type"] = info.workflow_type
        self.spans.whole(info.workflow_type, run, parent, times, attributes, error)


def _kind(raised: BaseException) -> str:
    if isinstance(raised, ApplicationError):
        return raised.type or type(raised).__name__
    if is_cancelled_exception(raised):
        return TaskState.CANCELLED
    return type(raised).__name__
