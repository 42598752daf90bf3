"""A task among others' workflows, odd inputs and large payloads, on the real engine."""

import json
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError, ChildWorkflowError
from temporalio.worker import Worker

from orchestrator.config import Temporal
from orchestrator.models import AgentCall, AgentReply, Dispatch
from tests.support.plans import AGENT, PAYLOAD, retry, task
from tests.workflows.parent import Lesson
from tests.workflows.stage import (
    Calls,
    failure,
    failure_of,
    hosted,
    reply,
    result_of,
    start,
)

BY_HAND = {"pattern": "read_pdf", "payload": PAYLOAD}


@pytest.fixture
async def stranger(engine: Temporal) -> Client:
    """A client that does not know our converter."""
    return await Client.connect(engine.target, identity="stranger")


async def lesson(stranger: Client, given: dict[str, Any]) -> Any:
    """What a foreign parent gets from its child."""
    async with Worker(stranger, task_queue="lessons", workflows=[Lesson]):
        handle = await stranger.start_workflow(
            "Lesson", given, id=str(uuid4()), task_queue="lessons"
        )
        return await result_of(handle)


async def test_a_foreign_workflow_runs_a_task_by_type_name(
    client: Client, stranger: Client
) -> None:
    """Plain JSON goes in and comes out."""
    calls = Calls()
    async with hosted(client, calls):
        result = await lesson(stranger, BY_HAND)
    assert (AGENT, {"text": "done"}) == (result["agent"], result["result"])
    assert calls.seen[0].task_id.endswith("/1")


async def test_a_foreign_workflow_learns_why_its_task_failed(
    client: Client, stranger: Client
) -> None:
    """By the type and the details of the failure."""
    async with hosted(
        client, Calls(failures=9, error=lambda: failure("AgentRejected", permanent=True))
    ):
        with pytest.raises(WorkflowFailureError) as caught:
            await lesson(stranger, BY_HAND)
    assert isinstance(caught.value.cause, ChildWorkflowError)
    cause = caught.value.cause.cause
    assert isinstance(cause, ApplicationError)
    assert ("AgentRejected", 1) == (cause.type, cause.details[0]["attempts"])


@pytest.mark.parametrize("dispatch", Dispatch)
async def test_a_result_over_the_engines_cap_fails_the_task_after_one_call(
    client: Client, dispatch: Dispatch
) -> None:
    """No further attempt would bring a smaller one."""

    async def huge(_: AgentCall) -> AgentReply:
        return reply("x" * 2_050_000)

    calls = Calls(behaviour=huge)
    async with hosted(client, calls):
        given = task(dispatch=dispatch, retry=retry(initial_seconds=0.05))
        error = await failure_of(await start(client, given))
    assert ("PayloadTooLarge", 1) == (error.type, len(calls.seen))


@pytest.mark.parametrize("dispatch", Dispatch)
async def test_a_large_result_comes_through(client: Client, dispatch: Dispatch) -> None:
    """Just under the cap, in the activity's result and in the workflow's."""

    async def large(_: AgentCall) -> AgentReply:
        return reply("x" * 1_900_000)

    async with hosted(client, Calls(behaviour=large)):
        result = await result_of(await start(client, task(dispatch=dispatch)))
    assert 1_900_000 == len(result["result"])


async def test_an_input_over_our_cap_fails_the_task(client: Client, stranger: Client) -> None:
    """The engine let it pass; the call would not."""
    given = {"pattern": "read_pdf", "payload": {"text": "x" * 2_040_000}}
    assert len(json.dumps(given)) < 2 * 1024 * 1024
    async with hosted(client, Calls()):
        error = await failure_of(await start(stranger, given))
    assert "PayloadTooLarge" == error.type


async def test_a_long_failure_text_still_fails_the_task(client: Client) -> None:
    """The engine cuts it; the type stays."""
    async with hosted(
        client, Calls(failures=9, error=lambda: failure(permanent=True, message="x" * 100_000))
    ):
        error = await failure_of(await start(client, task()))
    assert "AgentFailed" == error.type


async def test_the_log_of_a_failed_task_leaves_out_what_the_agent_said(client: Client) -> None:
    """The failure shows it to those who may see the task; logs go further."""
    said = "answered 500; it said: user 4711"
    async with hosted(
        client, Calls(failures=9, error=lambda: failure(permanent=True, message=said))
    ):
        with capture_logs() as logs:
            error = await failure_of(await start(client, task()))
    assert "user 4711" in error.message
    assert ["task_failed"] == [line["event"] for line in logs]
    assert "user 4711" not in str(logs)


async def test_the_end_of_a_task_is_logged_once(client: Client) -> None:
    """However often its workflow is replayed."""
    async with hosted(client, Calls()):
        with capture_logs() as logs:
            handle = await start(client, task())
            await result_of(handle)
            await handle.query("status")
    assert ["task_completed"] == [line["event"] for line in logs]
