"""A task whose agent is not available waits, and goes on as if nothing had been."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.runtime import BufferedMetricUpdate, MetricBuffer, Runtime, TelemetryConfig

from orchestrator.config import Temporal
from orchestrator.engine import search_attributes
from orchestrator.engine.converter import data_converter
from orchestrator.models import BlockedBy, TaskState
from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE
from tests.support.agents import Agent, Reply
from tests.support.engine import client_of
from tests.support.stack import eventually
from tests.workflows.agents_stage import Stage, idle, serving
from workflows import options

INLINE = {"dispatch": "inline"}


async def test_an_inline_task_goes_over_to_the_queue_of_an_agent_that_is_away(
    client: Client,
) -> None:
    """Where its wait is the engine's; it has lost no attempt when the agent is back."""
    async with serving(client, rule=INLINE, error_recovery={"max_retries": 0}) as stage:
        stage.shut()
        task_id = await stage.submit()
        await stage.waiting(1)
        before = await stage.tasks.status(task_id)
        stage.reset()
        status = await stage.ended(task_id)
    assert (TaskState.QUEUED, 0) == (before.status, before.attempts)
    assert (TaskState.COMPLETED, 1) == (status.status, status.attempts)


async def test_an_inline_task_is_tried_again_by_the_queue(client: Client) -> None:
    """After the pause that its first attempt asked for, which the status shows."""
    agent = Agent(Reply(status=503, headers={"Retry-After": "2"}), Reply())
    async with serving(client, agent, rule=INLINE) as stage:
        task_id = await stage.submit()
        waits = await stage.until(task_id, lambda found: found.blocked_by)
        status = await stage.ended(task_id)
    assert (BlockedBy.RETRY_BACKOFF, TaskState.RUNNING, 1) == (
        waits.blocked_by,
        waits.status,
        waits.attempts,
    )
    assert (TaskState.COMPLETED, 2, [1, 2]) == (
        status.status,
        status.attempts,
        [each.attempt for each in status.attempt_history or ()],
    )
    first, second = agent.calls
    assert 2.0 <= second.at - first.at


async def test_an_attempt_is_told_while_the_next_is_under_way(client: Client) -> None:
    """GET /status needs no worker for it."""
    async with serving(client, Agent(Reply(status=500), Reply(hang=True))) as stage:
        task_id = await stage.submit()
        await stage.agents[0].called(2)
        status = await stage.until(task_id, lambda found: found.attempts == 2)
        stage.agents[0].release()
        await stage.ended(task_id)
    assert (TaskState.RUNNING, [(1, "AgentFailed", 500)]) == (
        status.status,
        [(each.attempt, each.outcome, each.status) for each in status.attempt_history or ()],
    )


async def test_a_call_in_flight_when_its_worker_stops_is_made_by_the_next(
    client: Client,
) -> None:
    """At once, and without an attempt spent."""
    agent = Agent(Reply(hang=True), Reply())
    async with idle(client, agent, error_recovery={"max_retries": 0}) as stage, stage.workflows():
        worker = stage.worker()
        running = asyncio.create_task(worker.run())
        task_id = await stage.submit()
        await agent.called()
        await worker.shutdown()
        await running
        async with stage.worker():
            status = await stage.ended(task_id)
    assert (TaskState.COMPLETED, ["WorkerStopping", "success"]) == (
        status.status,
        [each.outcome for each in status.attempt_history or ()],
    )


async def test_a_new_priority_holds_for_the_calls_to_come(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that waits already is the engine's to move; lists show the new one at once."""
    monkeypatch.setattr(options, "FALLBACK_AFTER", timedelta(seconds=1))
    async with serving(client, Agent(), Agent(), rule={"priority": 2}) as stage:
        stage.shut(0)
        task_id = await stage.submit()
        await stage.waiting(1)
        handle = client.get_workflow_handle(task_id)
        await handle.signal("set_priority", 5)
        shown = await eventually(lambda: _priority(stage, task_id, 5))
        queried = await handle.query("status", result_type=dict[str, Any])
        await stage.ended(task_id)
        calls = await stage.scheduled(task_id)
        found = (await handle.describe()).typed_search_attributes
    assert (5, 5, 5) == (shown, queried["priority"], found.get(search_attributes.PRIORITY))
    assert [4, 1] == [each.priority.priority_key for each in calls]


async def _priority(stage: Stage, task_id: str, wanted: int) -> int | None:
    priority = (await stage.tasks.status(task_id)).priority
    return priority if priority == wanted else None


@pytest.mark.parametrize("priority", [0, 6])
async def test_a_priority_that_there_is_not_is_passed_over(client: Client, priority: int) -> None:
    """A signal has no answer that could refuse it."""
    async with serving(client) as stage:
        stage.shut()
        task_id = await stage.submit()
        handle = client.get_workflow_handle(task_id)
        await handle.signal("set_priority", priority)
        queried = await handle.query("status", result_type=dict[str, Any])
        stage.reset()
        status = await stage.ended(task_id)
    assert (3, 3, TaskState.COMPLETED) == (queried["priority"], status.priority, status.status)


async def test_a_priority_that_comes_before_the_plan_is_kept(client: Client) -> None:
    """A task that is started by hand is routed first."""
    async with serving(client) as stage:
        handle = await client.start_workflow(
            WORKFLOW_TYPE,
            {"pattern": stage.names[0], "payload": {}},
            id=str(uuid4()),
            task_queue=WORKFLOW_QUEUE,
            start_signal="set_priority",
            start_signal_args=[5],
        )
        status = await stage.ended(handle.id)
        calls = await stage.scheduled(handle.id)
    assert (5, [1]) == (status.priority, [each.priority.priority_key for each in calls])


async def test_healthy_tasks_make_no_engine_call_beyond_those_of_one_activity(
    engine: Temporal,
) -> None:
    """Of ten tasks, by the count of the engine's client: no heartbeat, no signal, no query."""
    await client_of(engine)  # it answers from now on
    buffer = MetricBuffer(100_000)
    client = await Client.connect(
        engine.target,
        data_converter=data_converter,
        identity="counted",
        runtime=Runtime(telemetry=TelemetryConfig(metrics=buffer)),
    )
    async with serving(client) as stage:
        statuses = await stage.all_ended([await stage.submit() for _ in range(10)])
    counted = requests(buffer.retrieve_updates())
    assert {(TaskState.COMPLETED, 1)} == {(each.status, each.attempts) for each in statuses}
    assert (10, 10, 20) == (
        counted.pop("StartWorkflowExecution"),
        counted.pop("RespondActivityTaskCompleted"),
        counted.pop("RespondWorkflowTaskCompleted"),
    )
    of_the_test = {"DescribeWorkflowExecution", "GetWorkflowExecutionHistory"}
    # A worker's heartbeat comes once a minute, whatever is done; its first may come now.
    of_the_workers = {
        *("GetSystemInfo", "DescribeNamespace", "ShutdownWorker", "RecordWorkerHeartbeat"),
    }
    assert set() == {
        name
        for name in counted
        if name not in of_the_test | of_the_workers and not name.startswith("Poll")
    }


def requests(updates: Iterable[BufferedMetricUpdate]) -> dict[str, int]:
    """The engine's client's calls, by their names."""
    counted: dict[str, int] = {}
    for update in updates:
        if update.metric.name in {"temporal_request", "temporal_long_request"}:
            name = str(update.attributes["operation"])
            counted[name] = counted.get(name, 0) + int(update.value)
    return counted
