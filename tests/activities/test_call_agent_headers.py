"""What an agent is told about the call beside its payload."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.activities.stage import Caller, calling
from tests.support.agents import Agent, Call
from tests.support.plans import AGENT, call

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def heard(agent: Agent, caller: Caller, **changes: str) -> Call:
    """The call as the agent saw it."""
    await caller.attempt(call(**changes))
    return agent.calls[-1]


async def test_every_attempt_carries_the_same_idempotency_key() -> None:
    """It is the task's id, so that the agent does the work once."""
    async with Agent() as agent, calling(agent.url) as caller:
        for attempt in (1, 2, 3):
            await caller.attempt(call(), attempt)
    assert [call().task_id] * 3 == [each.headers["Idempotency-Key"] for each in agent.calls]


async def test_the_agent_is_told_the_task_and_the_attempt() -> None:
    """X-Task-ID stays, X-Attempt counts."""
    async with Agent() as agent, calling(agent.url) as caller:
        for attempt in (1, 2):
            await caller.attempt(call(), attempt)
    assert [(call().task_id, "1"), (call().task_id, "2")] == [
        (each.headers["X-Task-ID"], each.headers["X-Attempt"]) for each in agent.calls
    ]


async def test_the_agent_is_told_when_its_answer_is_due() -> None:
    """X-Deadline is a time with zone, the attempt's timeout away."""
    async with Agent() as agent, calling(agent.url) as caller:
        before = datetime.now(UTC)
        await caller.attempt(call(attempt_timeout=30))
        after = datetime.now(UTC)
    deadline = datetime.fromisoformat(agent.calls[0].headers["X-Deadline"])
    rounding = timedelta(milliseconds=1)
    assert before + timedelta(seconds=30) - rounding <= deadline <= after + timedelta(seconds=30)


async def test_a_trace_context_that_was_given_is_passed_on() -> None:
    """The agent's spans join the caller's trace."""
    async with Agent() as agent, calling(agent.url) as caller:
        request = await heard(agent, caller, traceparent=TRACE)
    assert TRACE == request.headers["traceparent"]


async def test_without_a_trace_context_the_task_is_the_trace() -> None:
    """All attempts of a task share a trace id, which is the task's."""
    async with Agent() as agent, calling(agent.url) as caller:
        request = await heard(agent, caller)
    trace_id = call().task_id.replace("-", "")
    assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-00", request.headers["traceparent"])


async def test_any_task_id_makes_a_valid_trace_context() -> None:
    """Workflows started by hand may have names instead of UUIDs."""
    async with Agent() as agent, calling(agent.url) as caller:
        first = await heard(agent, caller, task_id="invoice 17")
        second = await heard(agent, caller, task_id="invoice 17")
    trace_ids = {each.headers["traceparent"].split("-")[1] for each in (first, second)}
    assert [32] == [len(each) for each in trace_ids]


async def test_the_agents_configured_headers_are_sent() -> None:
    """Credentials reach the agent they are for."""
    headers = {AGENT: {"Authorization": "Bearer s3cret"}, "another": {"X-Other": "1"}}
    async with Agent() as agent, calling(agent.url, headers=headers) as caller:
        request = await heard(agent, caller)
    assert ("Bearer s3cret", None) == (
        request.headers["Authorization"],
        request.headers.get("X-Other"),
    )


async def test_the_payload_is_announced_as_json() -> None:
    """And JSON is what is asked for."""
    async with Agent() as agent, calling(agent.url) as caller:
        request = await heard(agent, caller)
    assert ("application/json", "application/json") == (
        request.headers["Content-Type"],
        request.headers["Accept"],
    )


async def test_a_task_id_beyond_ascii_reaches_the_agent() -> None:
    """Whoever starts a workflow by hand may name it as the engine allows."""
    async with Agent() as agent, calling(agent.url) as caller:
        request = await heard(agent, caller, task_id="rechnung-ä-17")
    assert "rechnung-ä-17" == request.headers["Idempotency-Key"]


@pytest.mark.parametrize("changes", [{"task_id": "two\nlines"}, {"traceparent": "00-1\r\nX: 1"}])
async def test_what_cannot_be_a_header_is_a_permanent_failure(changes: dict[str, str]) -> None:
    """No attempt would get further, and the agent sees nothing."""
    async with Agent() as agent, calling(agent.url) as caller:
        error = await caller.failure(call(**changes))
    assert ("AgentRejected", True, []) == (error.type, error.non_retryable, agent.calls)
