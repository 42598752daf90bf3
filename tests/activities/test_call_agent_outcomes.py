"""What one attempt brings, by what the agent did."""

from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError

from orchestrator.models import AgentReply, Attempt
from tests.activities.stage import MAX_RESULT_BYTES, calling, failure_in, unserved
from tests.support.agents import Agent, Reply
from tests.support.plans import AGENT, call

RETRYABLE = {
    408: "AgentFailed",
    425: "AgentFailed",
    429: "AgentOverloaded",
    500: "AgentFailed",
    501: "AgentFailed",
    503: "AgentFailed",
    599: "AgentFailed",
}
PERMANENT = {
    301: "AgentRejected",
    307: "AgentRejected",
    400: "AgentRejected",
    404: "AgentRejected",
    409: "AgentRejected",
    422: "AgentRejected",
}


def made(error: ApplicationError) -> Attempt:
    """The attempt that failed."""
    [attempt] = failure_in(error).progress.attempts
    return attempt


async def test_a_success_is_answered_with_the_agents_json_and_where_it_came_from() -> None:
    """The reply holds body, status, instance and attempt; its seconds are positive."""
    async with Agent(Reply(status=201, body={"pages": 3})) as agent, calling(agent.url) as caller:
        reply = await caller.attempt(call(), attempt=2)
    [attempt] = reply.attempts
    expected = AgentReply(
        result={"pages": 3},
        instance=agent.url,
        status=201,
        attempt=2,
        seconds=reply.seconds,
        attempts=(
            Attempt(
                attempt=2,
                agent=AGENT,
                instance=agent.url,
                outcome="success",
                seconds=reply.seconds,
                status=201,
                at=attempt.at,
            ),
        ),
    )
    assert expected == reply
    assert reply.seconds > 0


async def test_an_empty_answer_is_a_success_without_result() -> None:
    """204 has no body, which is None and not an error."""
    async with Agent(Reply(status=204, body=b"")) as agent, calling(agent.url) as caller:
        reply = await caller.attempt(call())
    assert (204, None) == (reply.status, reply.result)


async def test_the_payload_is_the_body_that_the_agent_gets() -> None:
    """Nothing is added to the payload, and it goes to the rule's path."""
    async with Agent() as agent, calling(agent.url) as caller:
        await caller.attempt(call(payload={"file": "ä.pdf", "pages": [1, 2]}))
    assert [("/read", {"file": "ä.pdf", "pages": [1, 2]})] == [
        (each.path, each.body) for each in agent.calls
    ]


@pytest.mark.parametrize("status", RETRYABLE)
async def test_statuses_that_another_attempt_may_cure_are_retryable(status: int) -> None:
    """Type, flag and details say which error it was and that it may be tried again."""
    async with Agent(Reply(status=status)) as agent, calling(agent.url) as caller:
        error = await caller.failure(call(), attempt=2)
    attempt = made(error)
    expected = Attempt(
        attempt=2,
        agent=AGENT,
        instance=agent.url,
        outcome=RETRYABLE[status],
        seconds=attempt.seconds,
        status=status,
        at=attempt.at,
        error=attempt.error,
    )
    assert (RETRYABLE[status], False) == (error.type, error.non_retryable)
    assert (expected, True, False) == (
        attempt,
        failure_in(error).retryable,
        failure_in(error).exhausted,
    )


async def test_an_attempt_tells_when_it_was_made_and_what_went_wrong() -> None:
    """By the worker's clock, and without what the agent said."""
    before = datetime.now(UTC)
    async with Agent(Reply(status=500, body="user 4711")) as agent, calling(agent.url) as caller:
        attempt = made(await caller.failure(call()))
    assert attempt.at is not None
    assert before <= attempt.at <= datetime.now(UTC) - timedelta(seconds=attempt.seconds)
    assert f"{AGENT} at {agent.url}/read answered 500 Internal Server Error" == attempt.error


async def test_an_attempts_error_is_kept_short() -> None:
    """Twenty of them travel with the call."""
    path = "/" + "x" * 1000
    async with Agent(Reply(status=500)) as agent, calling(agent.url) as caller:
        attempt = made(await caller.failure(call(endpoint=path)))
    assert 300 == len(attempt.error or "")


@pytest.mark.parametrize("status", PERMANENT)
async def test_statuses_that_no_attempt_can_cure_are_permanent(status: int) -> None:
    """They ask for no other attempt and no pause, and keep the status in their details."""
    reply = Reply(status=status, headers={"Location": "/elsewhere", "Retry-After": "7"})
    async with Agent(reply) as agent, calling(agent.url) as caller:
        error = await caller.failure(call())
    found = failure_in(error)
    assert (PERMANENT[status], True, status) == (
        error.type,
        error.non_retryable,
        made(error).status,
    )
    assert (False, False, None, None) == (
        found.retryable,
        found.exhausted,
        found.pause,
        found.blocked_by,
    )


async def test_a_redirect_is_not_followed() -> None:
    """The agent sees one call; another address never does."""
    reply = Reply(status=307, headers={"Location": "/elsewhere"})
    async with Agent(reply) as agent, calling(agent.url) as caller:
        await caller.failure(call())
    assert ["/read"] == [each.path for each in agent.calls]


async def test_an_agent_that_nobody_serves_is_unreachable() -> None:
    """A refused connection is retryable and names the instance."""
    with unserved() as url:
        async with calling(url) as caller:
            error = await caller.failure(call())
    assert ("AgentUnreachable", False, url, None) == (
        error.type,
        error.non_retryable,
        made(error).instance,
        made(error).status,
    )


async def test_a_broken_connection_is_retryable() -> None:
    """The agent got the request and then went away."""
    async with Agent(Reply(reset=True)) as agent, calling(agent.url) as caller:
        error = await caller.failure(call())
    assert ("AgentDisconnected", False) == (error.type, error.non_retryable)


async def test_an_answer_that_ends_too_early_is_a_broken_connection() -> None:
    """Fewer bytes than Content-Length promised are no answer."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    async with Agent(Reply(raw=raw)) as agent, calling(agent.url) as caller:
        error = await caller.failure(call())
    assert ("AgentDisconnected", False) == (error.type, error.non_retryable)


async def test_an_answer_that_is_not_http_is_a_failed_agent() -> None:
    """Another attempt may meet a healthy agent."""
    async with (
        Agent(Reply(raw=b"SSH-2.0-something\r\n\r\n")) as agent,
        calling(agent.url) as caller,
    ):
        error = await caller.failure(call())
    assert ("AgentFailed", False) == (error.type, error.non_retryable)


async def test_a_call_over_its_timeout_is_retryable() -> None:
    """The message says how long it waited."""
    async with Agent(Reply(hang=True)) as agent, calling(agent.url) as caller:
        error = await caller.failure(call(attempt_timeout=0.05))
    assert ("AgentTimedOut", False) == (error.type, error.non_retryable)
    assert f"{AGENT} at {agent.url}/read did not answer within 0.05 s" == error.message


async def test_an_answer_over_the_cap_is_permanent() -> None:
    """Another attempt would bring the same answer."""
    body = "x" * (MAX_RESULT_BYTES + 1)
    async with Agent(Reply(body=[body])) as agent, calling(agent.url) as caller:
        error = await caller.failure(call())
    assert ("ReplyTooLarge", True, 200) == (
        error.type,
        error.non_retryable,
        made(error).status,
    )


async def test_an_answer_that_is_not_json_is_permanent() -> None:
    """The message shows the beginning of what came."""
    async with Agent(Reply(body="<p>hello</p>")) as agent, calling(agent.url) as caller:
        error = await caller.failure(call())
    assert ("ReplyUnreadable", True) == (error.type, error.non_retryable)
    assert "text/plain that is not JSON" in error.message
    assert error.message.endswith("it said: <p>hello</p>")


async def test_an_agent_that_this_process_does_not_know_is_retryable() -> None:
    """Another worker may have newer configuration; no instance was chosen."""
    async with calling() as caller:
        error = await caller.failure(call(agent="stranger"))
    assert ("AgentUnreachable", False, None) == (
        error.type,
        error.non_retryable,
        made(error).instance,
    )
    assert "stranger has no instances in this process" == error.message


async def test_a_whole_url_as_endpoint_is_called_as_it_is() -> None:
    """Its origin is the instance, with or without configured ones."""
    async with Agent() as agent, calling("http://127.0.0.1:9") as caller:
        reply = await caller.attempt(call(endpoint=f"{agent.url}/v2/read"))
    assert (agent.url, "/v2/read") == (reply.instance, agent.calls[0].path)
