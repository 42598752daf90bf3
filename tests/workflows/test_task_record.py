"""What the engine keeps of a task: events, search attributes, priority, the status query."""

from typing import Any

import pytest
from temporalio.client import Client
from temporalio.common import Priority

from orchestrator.engine import search_attributes
from orchestrator.models import Dispatch
from tests.support.plans import AGENT, PAYLOAD, retry, task
from tests.workflows.stage import (
    Calls,
    cancelled,
    events,
    failure,
    failure_of,
    happened,
    hosted,
    result_of,
    scheduled,
    start,
)

BY_HAND = {"pattern": "read_pdf", "payload": PAYLOAD}
TASK_EVENTS = ["WORKFLOW_TASK_SCHEDULED", "WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_COMPLETED"]


def attributes_of(given: Any) -> Any:
    """What the API gives at start."""
    return search_attributes.of_task(given, given.plan)


async def test_a_healthy_queued_task_costs_the_events_of_one_activity(client: Client) -> None:
    """And none beside them."""
    given = task()
    async with hosted(client, Calls()):
        handle = await start(client, given, search_attributes=attributes_of(given))
        await result_of(handle)
    assert [
        "WORKFLOW_EXECUTION_STARTED",
        *TASK_EVENTS,
        "ACTIVITY_TASK_SCHEDULED",
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        *TASK_EVENTS,
        "WORKFLOW_EXECUTION_COMPLETED",
    ] == await events(handle)


async def test_an_inline_task_is_one_marker(client: Client) -> None:
    """Its call never goes through a task queue."""
    given = task(dispatch=Dispatch.INLINE)
    async with hosted(client, Calls(), agent_worker=False):
        handle = await start(client, given, search_attributes=attributes_of(given))
        await result_of(handle)
    assert [
        "WORKFLOW_EXECUTION_STARTED",
        *TASK_EVENTS,
        "MARKER_RECORDED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ] == await events(handle)


async def test_an_inline_task_is_retried_by_the_agents_queue(client: Client) -> None:
    """With the same count as a queued one."""
    calls = Calls(failures=2)
    given = task(dispatch=Dispatch.INLINE, retry=retry(initial_seconds=0.05))
    async with hosted(client, calls):
        handle = await start(client, given)
        result = await result_of(handle)
    assert (3, [True, False, False]) == (
        result["attempts"],
        [info.is_local for info in calls.infos],
    )
    assert 1 == (await events(handle)).count("ACTIVITY_TASK_SCHEDULED")


async def test_an_inline_task_keeps_the_pause_that_an_attempt_asks_for(client: Client) -> None:
    """Rather than its own backoff."""
    calls = Calls(failures=1, error=lambda: failure(pause=1.0))
    given = task(dispatch=Dispatch.INLINE, retry=retry(initial_seconds=0.01))
    async with hosted(client, calls):
        await result_of(await start(client, given))
    assert (calls.times[1] - calls.times[0]).total_seconds() >= 1.0


async def test_a_long_pause_of_an_inline_task_is_the_engines(skipping: Client) -> None:
    """No worker has to live through it; the attempts are counted on."""
    calls = Calls(failures=1, error=lambda: failure(pause=60))
    async with hosted(skipping, calls):
        result = await result_of(await start(skipping, task(dispatch=Dispatch.INLINE)))
    assert (2, 2) == (result["attempts"], len(calls.seen))
    assert (calls.times[1] - calls.times[0]).total_seconds() >= 60


async def test_an_inline_task_fails_with_its_attempts(client: Client) -> None:
    """As a queued one does."""
    given = task(dispatch=Dispatch.INLINE, retry=retry(initial_seconds=0.01))
    async with hosted(client, Calls(failures=9)):
        error = await failure_of(await start(client, given))
    assert ("AgentFailed", "Failed after 4 attempts: the agent answered 500", 4) == (
        error.type,
        error.message,
        error.details[0]["attempts"],
    )


async def test_a_task_that_is_started_by_hand_can_be_found(client: Client) -> None:
    """It is given its search attributes once."""
    async with hosted(client, Calls(failures=1)):
        handle = await start(client, {**BY_HAND, "tenant": "school"})
        await result_of(handle)
        described = await handle.describe()
    found = described.typed_search_attributes
    assert (AGENT, "read_pdf", 2, "school") == (
        found.get(search_attributes.AGENT),
        found.get(search_attributes.PATTERN),
        found.get(search_attributes.PRIORITY),
        found.get(search_attributes.TENANT),
    )
    assert 1 == (await events(handle)).count("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES")


async def test_a_task_says_in_the_web_ui_where_it_goes(client: Client) -> None:
    """Also when it was started by hand."""
    async with hosted(client, Calls(), agent_worker=False):
        handle = await start(client, BY_HAND)
        await scheduled(handle)
        metadata = await handle.query("__temporal_workflow_metadata")
        await handle.terminate()
    assert f"**read_pdf → {AGENT}**, chosen by exact pattern" in str(metadata)


async def test_a_call_has_its_tasks_priority_and_tenant(client: Client) -> None:
    """Also when it was started by hand, which gives the workflow none; our 5 is the engine's 1."""
    calls = Calls()
    async with hosted(client, calls):
        handle = await start(client, {**BY_HAND, "priority": 5, "tenant": "school"})
        await result_of(handle)
    assert [Priority(priority_key=1, fairness_key="school")] == [
        info.priority for info in calls.infos
    ]


async def test_the_status_of_a_running_task(client: Client) -> None:
    """While its call is under way."""
    calls = Calls()
    calls.behaviour = calls.until_cancelled
    async with hosted(client, calls):
        handle = await start(client, task())
        await happened(calls.started)
        status = await handle.query("status", result_type=dict[str, Any])
        await handle.cancel()
        await cancelled(handle)
    assert {
        "task_id": handle.id,
        "status": "running",
        "agent": AGENT,
        "pattern": "read",
        "priority": 3,
        "tenant": "default",
        "chosen_by": "exact pattern read",
    } == {k: v for k, v in status.items() if not k.endswith("_at")}


async def test_the_status_of_a_completed_task(client: Client) -> None:
    """With its result."""
    async with hosted(client, Calls()):
        handle = await start(client, task())
        await result_of(handle)
        status = await handle.query("status", result_type=dict[str, Any])
    assert ("completed", {"text": "done"}, 1, 0.25) == (
        status["status"],
        status["result"],
        status["attempts"],
        status["execution_time"],
    )


async def test_the_status_of_a_failed_task(client: Client) -> None:
    """With what went wrong, as GET /status shows it."""
    async with hosted(client, Calls(failures=9)):
        handle = await start(client, task(retry=retry(max_attempts=1)))
        await failure_of(handle)
        status = await handle.query("status", result_type=dict[str, Any])
    assert ("failed", 1, "Failed after 1 attempt: the agent answered 500", "AgentFailed") == (
        status["status"],
        status["attempts"],
        status.get("error"),
        status.get("error_type"),
    )


async def test_the_status_of_a_cancelled_task(client: Client) -> None:
    """Not running any more, and updated when it ended."""
    async with hosted(client, Calls(), agent_worker=False):
        handle = await start(client, task())
        await scheduled(handle)
        await handle.cancel()
        await cancelled(handle)
        status = await handle.query("status", result_type=dict[str, Any])
    assert "cancelled" == status["status"]


@pytest.mark.parametrize("given", [{"pattern": "nope", "payload": {}}, None])
async def test_the_status_of_a_task_that_never_got_a_route(client: Client, given: Any) -> None:
    """It has failed, and does not look queued for ever."""
    async with hosted(client, Calls()):
        handle = await start(client, given)
        await failure_of(handle)
        status = await handle.query("status", result_type=dict[str, Any])
    assert "failed" == status["status"]
