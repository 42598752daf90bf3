"""What happens while a call is under way: deadline, heartbeats, cancellation, logs."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from activities.heartbeats import HEARTBEAT_SECONDS
from orchestrator.engine.converter import data_converter
from orchestrator.models import Attempt, Progress
from tests.activities.stage import calling, failure_in
from tests.support.agents import DEADLINE_SECONDS, Agent, Reply
from tests.support.plans import AGENT, call

UNPROCESSABLE = HTTPStatus(422).phrase
"""Python 3.13 calls it otherwise."""


async def test_an_attempt_ends_before_the_tasks_deadline() -> None:
    """What is left of the deadline is less than the attempt's own timeout."""
    now = datetime.now(UTC)
    async with Agent(Reply(hang=True)) as agent, calling(agent.url) as caller:
        error = await caller.failure(
            call(attempt_timeout=30),
            schedule_to_close_timeout=timedelta(seconds=60),
            scheduled_time=now - timedelta(seconds=59.9),
            current_attempt_scheduled_time=now,
            started_time=now,
        )
    assert "AgentTimedOut" == error.type
    assert datetime.fromisoformat(agent.calls[0].headers["X-Deadline"]) - now < timedelta(seconds=1)


async def test_the_engines_clock_tells_what_is_left_of_the_deadline() -> None:
    """The worker's clock may be wrong; the times in the activity's record are not."""
    engine_time = datetime(2001, 1, 1, tzinfo=UTC)
    async with Agent(Reply(hang=True)) as agent, calling(agent.url) as caller:
        error = await caller.failure(
            call(attempt_timeout=0.1),
            schedule_to_close_timeout=timedelta(seconds=60),
            scheduled_time=engine_time,
            current_attempt_scheduled_time=engine_time,
            started_time=engine_time,
        )
    assert f"{AGENT} at {agent.url}/read did not answer within 0.1 s" == error.message


async def test_without_a_deadline_the_attempts_timeout_holds() -> None:
    """As in an activity that was scheduled without one."""
    async with Agent(Reply(hang=True)) as agent, calling(agent.url) as caller:
        error = await caller.failure(call(attempt_timeout=0.1), schedule_to_close_timeout=None)
    assert "AgentTimedOut" == error.type


async def test_a_short_call_sends_no_heartbeat() -> None:
    """It costs the engine nothing beyond its own events."""
    beats: list[object] = []
    async with Agent() as agent, calling(agent.url) as caller:
        environment = caller.environment()
        environment.on_heartbeat = lambda *_: beats.append(None)
        await caller.run(environment, call())
    assert [] == beats


async def test_a_call_of_more_than_a_second_heartbeats() -> None:
    """The default is a second, well below the heartbeat timeout."""
    assert 1.0 == HEARTBEAT_SECONDS


async def test_a_long_call_goes_on_sending_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """One every interval for as long as the agent works."""
    monkeypatch.setattr("activities.call_agent.HEARTBEAT_SECONDS", 0.01)
    beats: list[object] = []
    async with Agent(Reply(hang=True)) as agent, calling(agent.url) as caller:

        def beat(*_: object) -> None:
            beats.append(None)
            if len(beats) == 3:
                agent.release()

        environment = caller.environment()
        environment.on_heartbeat = beat
        await caller.run(environment, call())
    assert len(beats) >= 3


async def test_heartbeats_end_with_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """No task is left behind on the worker's loop."""
    monkeypatch.setattr("activities.call_agent.HEARTBEAT_SECONDS", 0.01)
    async with Agent(Reply(status=500)) as agent, calling(agent.url) as caller:
        await caller.failure(call())
        async with asyncio.timeout(DEADLINE_SECONDS):
            beating = {each for each in asyncio.all_tasks() if "_beat" in repr(each)}
            await asyncio.gather(*beating, return_exceptions=True)
    assert not [each for each in asyncio.all_tasks() if "_beat" in repr(each)]


async def test_a_cancelled_call_closes_the_agents_connection() -> None:
    """The agent can stop its work."""
    async with Agent(Reply(hang=True)) as agent, calling(agent.url) as caller:
        environment = caller.environment()
        running = asyncio.create_task(caller.run(environment, call()))
        heard = await agent.called()
        environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await heard.abandonment()
    assert (True, False) == (heard.abandoned.is_set(), heard.answered.is_set())


async def test_a_timed_out_call_closes_the_agents_connection() -> None:
    """As a cancelled one does."""
    async with Agent(Reply(hang=True)) as agent, calling(agent.url) as caller:
        await caller.failure(call(attempt_timeout=1))
        heard = await agent.called()
        await heard.abandonment()
    assert heard.abandoned.is_set()


async def test_the_failure_shows_what_the_agent_said() -> None:
    """People read it in the Web UI."""
    refusal = Reply(status=422, body={"detail": "no such file"})
    async with Agent(refusal) as agent, calling(agent.url) as caller:
        error = await caller.failure(call())
    expected = f"{AGENT} at {agent.url}/read answered 422 {UNPROCESSABLE}; it said: "
    assert expected + '{"detail": "no such file"}' == error.message


async def test_the_log_of_a_failure_leaves_out_what_the_agent_said() -> None:
    """An answer may hold what nobody should read in a log."""
    broken = Reply(status=500, body={"detail": "user 4711"})
    async with Agent(broken) as agent, calling(agent.url) as caller:
        with capture_logs() as logs:
            await caller.failure(call(), attempt=2)
    [line] = logs
    expected = {
        "event": "attempt_failed",
        "log_level": "warning",
        "task_id": call().task_id,
        "agent": AGENT,
        "instance": agent.url,
        "attempt": 2,
        "error": f"{AGENT} at {agent.url}/read answered 500 Internal Server Error",
        "error_type": "AgentFailed",
        "execution_time": line["execution_time"],
    }
    assert expected == line


@pytest.mark.parametrize("reply", [Reply(), Reply(status=500), Reply(body="text")])
async def test_no_log_line_holds_payload_or_secret(reply: Reply) -> None:
    """Neither when the call succeeds nor when it fails."""
    headers = {AGENT: {"Authorization": "Bearer s3cret"}}
    async with Agent(reply) as agent, calling(agent.url, headers=headers) as caller:
        with capture_logs() as logs, suppress(ApplicationError):
            await caller.attempt(call(payload={"name": "Ada"}))
    assert not [line for line in logs if "Ada" in str(line) or "s3cret" in str(line)]


async def test_a_success_is_not_logged_here() -> None:
    """The workflow logs the task's end, once."""
    async with Agent() as agent, calling(agent.url) as caller:
        with capture_logs() as logs:
            await caller.attempt(call())
    assert [] == logs


async def test_a_call_whose_worker_was_lost_is_counted_as_a_retry() -> None:
    """Once, by the attempt that follows: the lost one could leave no word."""
    name = "orchestrator_agent_call_retries_total"
    labels = {"agent": AGENT, "outcome": "WorkerLost"}
    before = REGISTRY.get_sample_value(name, labels) or 0
    async with Agent(Reply(status=503), Reply()) as agent, calling(agent.url) as caller:
        await caller.failure(call(), attempt=2, after=Progress())
        await caller.attempt(call(), attempt=3, after=caller.left[-1])
    assert before + 1 == REGISTRY.get_sample_value(name, labels)


async def test_the_failure_before_a_next_attempt_is_brief() -> None:
    """The engine leaves out one of over 4 KiB; what is left word of is whole."""
    long = Attempt(
        attempt=1, agent=AGENT, instance="", outcome="AgentFailed", seconds=1, error="\u00fc" * 300
    )
    after = Progress(sent=20, waits=20, attempts=(long,) * 20)
    async with (
        Agent(Reply(status=500, body="\u00fc" * 1000)) as agent,
        calling(agent.url) as caller,
    ):
        error = await caller.failure(call(), 21, after=after)
    encoded = Failure()
    await data_converter.encode_failure(error, encoded)
    assert encoded.ByteSize() < 4096
    assert 21 == failure_in(error).attempts
    assert 20 == len(caller.left[-1].attempts)
