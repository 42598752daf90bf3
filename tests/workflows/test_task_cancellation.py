"""What becomes of a task that is cancelled, on the real engine."""

from datetime import timedelta

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from orchestrator.models import Dispatch
from tests.support.plans import task
from tests.workflows.stage import (
    Calls,
    cancelled,
    events,
    failure,
    happened,
    hosted,
    result_of,
    scheduled,
    start,
)
from workflows import options


async def test_a_queued_task_is_cancelled_without_a_call(client: Client) -> None:
    """No worker has to be there."""
    calls = Calls()
    async with hosted(client, calls, agent_worker=False):
        handle = await start(client, task())
        await scheduled(handle)
        await handle.cancel()
        await cancelled(handle)
    assert [] == calls.seen


async def test_a_task_that_waits_for_its_next_attempt_is_cancelled(client: Client) -> None:
    """And is not tried again."""
    calls = Calls(failures=9, error=lambda: failure(pause=600))
    async with hosted(client, calls):
        handle = await start(client, task())
        await happened(calls.started)
        await handle.cancel()
        await cancelled(handle)
    assert 1 == len(calls.seen)


async def test_a_running_call_sees_the_cancellation(client: Client) -> None:
    """The task ends only after the call has ended."""
    calls = Calls()
    calls.behaviour = calls.until_cancelled
    async with hosted(client, calls):
        handle = await start(client, task())
        await happened(calls.started)
        await handle.cancel()
        await cancelled(handle)
    types = await events(handle)
    assert (True, True) == (calls.cancelled.is_set(), calls.ended.is_set())
    assert types.index("ACTIVITY_TASK_CANCELED") < types.index("WORKFLOW_EXECUTION_CANCELED")


async def test_an_agent_that_finishes_all_the_same_completes_the_task(client: Client) -> None:
    """Work that was done is not thrown away."""
    calls = Calls()
    calls.behaviour = calls.in_spite_of_cancellation
    async with hosted(client, calls):
        handle = await start(client, task())
        await happened(calls.started)
        await handle.cancel()
        result = await result_of(handle)
    assert {"text": "done"} == result["result"]


async def test_a_call_whose_worker_died_does_not_hold_up_the_cancellation(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat timeout ends it, and the task as cancelled."""
    monkeypatch.setattr(options, "HEARTBEAT_TIMEOUT", timedelta(seconds=0.5))
    calls = Calls()
    calls.behaviour = calls.in_silence
    async with hosted(client, calls, sandboxed=False):
        handle = await start(client, task())
        await happened(calls.started)
        await handle.cancel()
        await cancelled(handle)
    assert 1 == len(calls.seen)


async def test_a_running_inline_call_sees_the_cancellation(client: Client) -> None:
    """The engine hands it on with the next heartbeat of the workflow task."""
    calls = Calls()
    calls.behaviour = calls.until_cancelled
    async with hosted(client, calls):
        handle = await start(client, task(dispatch=Dispatch.INLINE))
        await happened(calls.started)
        await handle.cancel()
        await cancelled(handle)
    assert calls.cancelled.is_set()


async def test_an_inline_call_in_its_long_pause_is_cancelled(client: Client) -> None:
    """It waits in the engine, by the agent's queue."""
    calls = Calls(failures=9, error=lambda: failure(pause=600))
    async with hosted(client, calls):
        handle = await start(client, task(dispatch=Dispatch.INLINE))
        await scheduled(handle)
        await handle.cancel()
        await cancelled(handle)
    assert 1 == len(calls.seen)


async def test_a_cancelled_task_is_closed_as_cancelled(client: Client) -> None:
    """Not as failed, in the engine's own words."""
    async with hosted(client, Calls(), agent_worker=False):
        handle = await start(client, task())
        await scheduled(handle)
        await handle.cancel()
        await cancelled(handle)
    assert WorkflowExecutionStatus.CANCELED == (await handle.describe()).status
