"""What ends a task by time, on the real engine with short times."""

from datetime import timedelta

import pytest
from temporalio.client import Client

from orchestrator.models import AgentCall, AgentReply, Dispatch, Route
from tests.histories.scenarios import FALLBACKS, Scenario, stage
from tests.support.agents import Reply
from tests.support.plans import retry, task
from tests.workflows.stage import (
    Calls,
    events,
    failed,
    failure,
    failure_of,
    hosted,
    reply,
    run,
    start,
)
from workflows import options

QUICK = retry(initial_seconds=0.05, backoff=1.0, max_attempts=2)
PATIENT = retry(initial_seconds=0.3, backoff=1.0, max_attempts=1000)


async def test_the_deadline_ends_a_task_between_its_attempts(client: Client) -> None:
    """The failure tells how often it was tried and what was wrong; time is up, or too short."""
    calls = Calls(failures=1000)
    async with hosted(client, calls):
        error = await failed(client, task(deadline=1.5, retry=PATIENT))
    attempts = error.details[0]["attempts"]
    assert "DeadlineExceeded" == error.type
    # One that began just before it may be told of too late.
    late = [each for each in calls.times if (each - calls.times[0]).total_seconds() > 1.2]
    assert attempts in {len(calls.seen), len(calls.seen) - len(late[-1:])}
    assert error.message in {
        f"The deadline of 1.5 s {over} after {attempts} attempts: the agent answered 500"
        for over in ("passed", "left no time for another attempt")
    }


async def test_many_attempts_with_long_errors_are_all_told(client: Client) -> None:
    """More than the engine keeps of a failure while the next attempt is waited for."""
    given = task(deadline=4.0, retry=retry(initial_seconds=0.02, backoff=1.0, max_attempts=1000))
    answer = Reply(status=500, body="x" * 1000)
    async with stage(client, Scenario(given, (answer,))) as (handle, agent):
        error = await failure_of(handle)
    told = error.details[0]
    assert ("DeadlineExceeded", len(agent.calls)) == (error.type, told["attempts"])
    assert min(20, len(agent.calls)) == len(told["attempt_history"])
    assert f"after {told['attempts']} attempt" in error.message
    assert "it said: xxx" in error.message


async def test_a_retry_after_beyond_the_deadline_ends_the_task(client: Client) -> None:
    """Waiting for it would be in vain."""
    async with hosted(client, Calls(failures=9, error=lambda: failure(pause=600))):
        error = await failed(client, task(deadline=5.0))
    assert ("DeadlineExceeded", 1) == (error.type, error.details[0]["attempts"])
    assert error.message.startswith("The deadline of 5 s left no time for another attempt after 1 ")


async def test_a_task_that_no_worker_took_ends_with_its_deadline(client: Client) -> None:
    """It was never tried, and is not then."""
    async with hosted(client, Calls(), agent_worker=False):
        handle = await start(client, task(deadline=0.5))
        error = await failure_of(handle)
        told = await events(handle)
    assert ("DeadlineExceeded", 0) == (error.type, error.details[0]["attempts"])
    assert (
        "The deadline of 0.5 s passed after 0 attempts: the call was still waiting in the agent's "
        "queue (no worker took it, or the agent took no call)" == error.message
    )
    assert 1 == told.count("ACTIVITY_TASK_SCHEDULED")


@pytest.mark.parametrize("fallbacks", [(), FALLBACKS], ids=["alone", "fallbacks"])
@pytest.mark.parametrize("dispatch", [Dispatch.QUEUED, Dispatch.INLINE])
async def test_no_call_is_made_after_the_deadline(
    client: Client, dispatch: Dispatch, fallbacks: tuple[Route, ...]
) -> None:
    """Of a task that has waited too long for a batch to begin it; nor is another agent asked."""
    calls = Calls()
    given = task(deadline=1.0, dispatch=dispatch, fallbacks=fallbacks)
    late = given.model_copy(update={"waited": 2.0})
    async with hosted(client, calls):
        error = await failed(client, late)
    assert ("DeadlineExceeded", 0) == (error.type, error.details[0]["attempts"])
    assert error.message.startswith("The deadline of 1 s passed after 0 attempts: ")
    assert [] == calls.seen


async def test_a_call_that_outlasts_its_timeout_is_ended_by_the_engine(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the worker's own timeout did not."""
    monkeypatch.setattr(options, "BACKSTOP", timedelta(seconds=0.1))
    calls = Calls()
    calls.behaviour = calls.in_silence
    async with hosted(client, calls, sandboxed=False):
        given = task(attempt_timeout=0.3, retry=retry(max_attempts=1, initial_seconds=0.05))
        error = await failed(client, given)
    assert ("WorkerLost", "Failed after 1 attempt: the worker that made the call was lost") == (
        error.type,
        error.message,
    )


async def test_a_worker_without_sign_of_life_is_given_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the heartbeat timeout; the failure counts the attempts all the same."""
    monkeypatch.setattr(options, "HEARTBEAT_TIMEOUT", timedelta(seconds=0.5))
    calls = Calls()
    calls.behaviour = calls.in_silence
    async with hosted(client, calls, sandboxed=False):
        error = await failed(client, task(retry=QUICK))
    assert ("WorkerLost", 2) == (error.type, error.details[0]["attempts"])
    assert "Failed after 2 attempts: the worker that made the call was lost" == error.message


async def test_a_lost_call_of_an_agent_that_must_not_be_called_twice_is_not_made_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what came of it, and no other worker is asked."""
    monkeypatch.setattr(options, "HEARTBEAT_TIMEOUT", timedelta(seconds=0.5))
    calls = Calls()
    calls.behaviour = calls.in_silence
    async with hosted(client, calls, sandboxed=False):
        error = await failed(client, task(retry=QUICK, idempotent=False))
    assert ("OutcomeUnknown", 1, 1) == (
        error.type,
        error.details[0]["attempts"],
        len(calls.seen),
    )


async def test_the_call_of_a_lost_worker_is_made_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its success is the task's."""
    monkeypatch.setattr(options, "HEARTBEAT_TIMEOUT", timedelta(seconds=0.5))
    calls = Calls()

    async def lost_at_first(call: AgentCall) -> AgentReply:
        return await calls.in_silence(call) if len(calls.seen) == 1 else reply()

    calls.behaviour = lost_at_first
    async with hosted(client, calls, sandboxed=False):
        result = await run(client, task(retry=QUICK))
    assert 2 == result["attempts"]


async def test_the_deadline_after_a_lost_worker_counts_its_attempt(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made, although it left no word."""
    monkeypatch.setattr(options, "HEARTBEAT_TIMEOUT", timedelta(seconds=0.5))
    calls = Calls()
    calls.behaviour = calls.in_silence
    async with hosted(client, calls, sandboxed=False):
        error = await failed(client, task(deadline=3.0, retry=retry(initial_seconds=10.0)))
    assert ("DeadlineExceeded", 1) == (error.type, error.details[0]["attempts"])


@pytest.mark.parametrize(("pause", "calls"), [(0.3, 4), (600, 1)])
async def test_the_deadline_ends_an_inline_task_between_its_attempts(
    client: Client, pause: float, calls: int
) -> None:
    """Whether the next attempt would come soon or by a durable timer."""
    given = task(
        deadline=1.0,
        dispatch=Dispatch.INLINE,
        retry=retry(initial_seconds=pause, backoff=1.0, maximum_seconds=600.0, max_attempts=1000),
    )
    async with stage(client, Scenario(given, (Reply(status=500),))) as (handle, agent):
        error = await failure_of(handle)
    assert ("DeadlineExceeded", len(agent.calls)) == (error.type, error.details[0]["attempts"])
    assert 1 <= len(agent.calls) <= calls


async def test_the_deadline_ends_an_inline_call_that_hangs(client: Client) -> None:
    """Its one attempt was under way."""
    given = task(deadline=0.5, dispatch=Dispatch.INLINE)
    async with stage(client, Scenario(given, (Reply(hang=True),))) as (handle, _):
        error = await failure_of(handle)
    assert ("DeadlineExceeded", 1) == (error.type, error.details[0]["attempts"])


async def test_an_inline_call_that_ignores_its_end_counts_as_an_attempt(client: Client) -> None:
    """The engine gave it up; nobody waited for a worker."""
    calls = Calls()
    calls.behaviour = calls.in_silence
    async with hosted(client, calls):
        error = await failed(client, task(deadline=0.5, dispatch=Dispatch.INLINE))
    assert 1 == error.details[0]["attempts"]
    assert "no worker" not in error.message
