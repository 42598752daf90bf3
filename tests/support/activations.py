"""A workflow, driven step by step: what comes together in one step of it decides its races.

    flow = Driven(TaskBatch, batch)
    [chunk] = flow.activities("run_chunk")
    flow.step(completed(chunk, report), cancelled())
    flow.ends()

A step is what the engine's core hands to the SDK's workflow instance at a time; a real engine
hands such things over together when it is busy, and nothing makes it do so in a test.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import temporalio.bridge.proto.activity_result as activity
import temporalio.bridge.proto.workflow_activation as activation
from temporalio import workflow
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import ActivityFailureInfo, CanceledFailureInfo, Failure
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.common import Priority, TypedSearchAttributes
from temporalio.converter import PayloadConverter
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker._workflow_instance import WorkflowInstance, WorkflowInstanceDetails

from orchestrator.engine.converter import converter
from orchestrator.routing import WORKFLOW_QUEUE

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=0.1)
RUN_ID = "a-run"

Job = activation.WorkflowActivationJob
Value = TypeVar("Value")

_CONVERTER = converter()


def _payloads() -> PayloadConverter:
    return _CONVERTER.payload_converter_class()


def _payload(value: Any) -> Payload:
    [payload] = _payloads().to_payloads([value])
    return payload


class Driven:
    """One run of a workflow, without an engine.

    Args:
        kind: its class.
        given: its argument.
        workflow_id: its id.
    """

    def __init__(self, kind: type, given: Any, workflow_id: str = "driven") -> None:
        self.is_full = False
        """Whether the engine suggests a new run from now on."""
        self.commands: list[WorkflowCommand] = []
        """Those of the last step."""
        self._now = START
        self._instance = _instance(kind, workflow_id)
        self.step(_started(kind, given, workflow_id))

    def step(self, *jobs: Job) -> list[WorkflowCommand]:
        """Let all of these happen at once; what the workflow asks for then."""
        self._now += STEP
        given = activation.WorkflowActivation(
            run_id=RUN_ID,
            jobs=jobs,
            history_length=10,
            continue_as_new_suggested=self.is_full,
            available_internal_flags=[1],
        )
        given.timestamp.FromDatetime(self._now)
        completion = self._instance.activate(given)
        assert completion.HasField("successful"), completion.failed.failure.message
        self.commands = list(completion.successful.commands)
        return self.commands

    def activities(self, kind: str) -> list[int]:
        """The activities of that type that were scheduled in the last step."""
        return [
            each.schedule_activity.seq
            for each in self.commands
            if each.schedule_activity.activity_type == kind
        ]

    def local_activities(self) -> list[tuple[int, Payload]]:
        """The local activities of the last step, and their arguments."""
        return [
            (each.schedule_local_activity.seq, each.schedule_local_activity.arguments[0])
            for each in self.commands
            if each.HasField("schedule_local_activity")
        ]

    def children(self) -> list[str]:
        """The ids of the child workflows that were started in the last step."""
        return [
            each.start_child_workflow_execution.workflow_id
            for each in self.commands
            if each.HasField("start_child_workflow_execution")
        ]

    def upserted(self, key: str, kind: type[Value]) -> Value:
        """What the last step has written into the memo."""
        found = [
            each.modify_workflow_properties.upserted_memo.fields[key]
            for each in self.commands
            if each.HasField("modify_workflow_properties")
        ]
        return _value(found[-1], kind)

    def ends(self) -> str | None:
        """How the last step has ended the run: the name of the command."""
        names = [str(each.WhichOneof("variant")) for each in self.commands]
        return next((each for each in names if each.endswith("workflow_execution")), None)

    def carried_on(self, kind: type[Value]) -> Value:
        """The argument of the run that goes on with the rest."""
        [command] = [
            each.continue_as_new_workflow_execution
            for each in self.commands
            if each.HasField("continue_as_new_workflow_execution")
        ]
        return _value(command.arguments[0], kind)


def completed(number: int, value: Any = None) -> Job:
    """An activity has returned this."""
    success = activity.Success(result=_payload(value))
    return Job(
        resolve_activity=activation.ResolveActivity(
            seq=number, result=activity.ActivityResolution(completed=success)
        )
    )


def has_been_cancelled(number: int) -> Job:
    """An activity has ended by its cancellation."""
    failure = Failure(
        message="activity cancelled",
        activity_failure_info=ActivityFailureInfo(),
        cause=Failure(message="cancelled", canceled_failure_info=CanceledFailureInfo()),
    )
    cancellation = activity.Cancellation(failure=failure)
    return Job(
        resolve_activity=activation.ResolveActivity(
            seq=number, result=activity.ActivityResolution(cancelled=cancellation)
        )
    )


def cancelled() -> Job:
    """Somebody cancels the workflow."""
    return Job(cancel_workflow=activation.CancelWorkflow(reason="asked for"))


def signalled(name: str, *given: Any) -> Job:
    """Somebody signals the workflow."""
    given_payloads = _payloads().to_payloads(given)
    return Job(signal_workflow=activation.SignalWorkflow(signal_name=name, input=given_payloads))


def _value(payload: Payload, kind: type[Value]) -> Value:
    [found] = _payloads().from_payloads([payload], [kind])
    assert isinstance(found, kind)
    return found


def _started(kind: type, given: Any, workflow_id: str) -> Job:
    start = activation.InitializeWorkflow(
        workflow_type=str(workflow._Definition.must_from_class(kind).name),
        workflow_id=workflow_id,
        arguments=_payloads().to_payloads([given]),
    )
    start.start_time.FromDatetime(START)
    return Job(initialize_workflow=start)


def _instance(kind: type, workflow_id: str) -> WorkflowInstance:
    definition = workflow._Definition.must_from_class(kind)
    details = WorkflowInstanceDetails(
        payload_converter_factory=_CONVERTER._new_payload_converter,
        failure_converter_class=_CONVERTER.failure_converter_class,
        interceptor_classes=[],
        defn=definition,
        info=_info(str(definition.name), workflow_id),
        randomness_seed=1,
        extern_functions={
            "__temporal_get_metric_meter": lambda: None,
            "__temporal_assert_local_activity_valid": lambda _: None,
        },
        disable_eager_activity_execution=False,
        worker_level_failure_exception_types=[],
        patch_activation_callback=None,
        last_completion_result=Payloads(),
        last_failure=None,
    )
    # It is made where a loop runs, and brings its own; that is not to be ours.
    loop = asyncio.new_event_loop()
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)
    try:
        return UnsandboxedWorkflowRunner().create_instance(details)
    finally:
        asyncio._set_running_loop(before)
        loop.close()


def _info(kind: str, workflow_id: str) -> workflow.Info:
    return workflow.Info(
        attempt=1,
        continued_run_id=None,
        cron_schedule=None,
        execution_timeout=None,
        first_execution_run_id=RUN_ID,
        headers={},
        namespace="default",
        original_execution_run_id=RUN_ID,
        parent=None,
        root=None,
        raw_memo={},
        retry_policy=None,
        run_id=RUN_ID,
        run_timeout=None,
        search_attributes={},
        start_time=START,
        workflow_start_time=START,
        task_queue=WORKFLOW_QUEUE,
        task_timeout=timedelta(seconds=10),
        typed_search_attributes=TypedSearchAttributes([]),
        workflow_id=workflow_id,
        workflow_type=kind,
        priority=Priority(),
    )
