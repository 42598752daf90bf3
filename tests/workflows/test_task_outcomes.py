"""How a task ends, on an engine that skips time."""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from orchestrator.models import Task, TaskOutcome
from tests.support.plans import AGENT, PAYLOAD, retry, task
from tests.workflows.stage import Calls, failed, failure, hosted, reply, run


async def test_a_task_with_its_plan_completes(skipping: Client) -> None:
    """The result holds the agent, its answer and what it took."""
    async with hosted(skipping, Calls()):
        result = await run(skipping, task())
    expected = {
        "agent": AGENT,
        "result": {"text": "done"},
        "attempts": 1,
        "execution_time": 0.25,
        "attempt_history": [],
    }
    assert expected == result


@pytest.mark.parametrize("result", [None, [], 0, "", "text", {"a": [1.5, None]}])
async def test_any_json_is_a_result(skipping: Client, result: Any) -> None:
    """Nothing an agent answers is mistaken for no answer."""

    async def answer(_: object) -> Any:
        return reply().model_copy(update={"result": result})

    async with hosted(skipping, Calls(behaviour=answer)):
        outcome = await run(skipping, task())
    assert result == outcome["result"]


async def test_a_task_without_plan_is_routed_first(skipping: Client) -> None:
    """Plain JSON with pattern and payload is enough."""
    calls = Calls()
    async with hosted(skipping, calls):
        result = await run(skipping, {"pattern": "read_pdf", "payload": PAYLOAD})
    [call] = calls.seen
    assert (AGENT, AGENT, "/read", PAYLOAD) == (
        result["agent"],
        call.agent,
        call.endpoint,
        call.payload,
    )


async def test_a_task_may_be_routed_by_capabilities(skipping: Client) -> None:
    """Without any pattern."""
    async with hosted(skipping, Calls()):
        result = await run(skipping, {"capabilities": ["text"], "payload": {}})
    assert AGENT == result["agent"]


async def test_an_unknown_pattern_fails_with_the_closest_names(skipping: Client) -> None:
    """The message helps whoever started the task by hand."""
    async with hosted(skipping, Calls()):
        error = await failed(skipping, {"pattern": "read_pfd", "payload": {}})
    assert ("UnknownPattern", "Unknown pattern 'read_pfd'; did you mean 'read_pdf'?") == (
        error.type,
        error.message,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "No input was given"),
        ((None,), "No input was given"),
        (({"pattern": 5, "payload": {}},), "pattern: Input should be a valid string"),
        (({"pattern": "read_pdf"},), "payload: Field required"),
        (({"pattern": "read_pdf", "payload": {}, "nope": 1},), "nope: Extra inputs"),
        (({"pattern": "read_pdf", "payload": {}, "priority": 9},), "priority: Input should be"),
        (({"payload": {}},), "name a pattern"),
        (("read_pdf",), "Input should be an object"),
        (([],), "Input should be an object"),
        ((b"read_pdf",), "No input was given"),
    ],
)
async def test_input_that_does_not_fit_fails_at_once(
    skipping: Client, arguments: tuple[Any, ...], said: str
) -> None:
    """It never stays running, and its message says what is wrong."""
    async with hosted(skipping, Calls()):
        error = await failed(skipping, *arguments)
    assert "InvalidInput" == error.type
    assert said in error.message


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt_timeout": -10.0},
        {"deadline": 1e300},
        {"retry": {**retry().model_dump(), "maximum_seconds": 0.5}},
    ],
)
async def test_a_plan_that_the_engine_would_refuse_ends_the_task(
    skipping: Client, changes: dict[str, Any]
) -> None:
    """By hand any numbers may come; none leaves the task running for ever."""
    given = task().model_dump(mode="json")
    given["plan"] |= changes
    async with hosted(skipping, Calls()):
        error = await failed(skipping, given)
    assert "InvalidInput" == error.type


async def test_a_task_is_retried_after_one_two_and_four_seconds(skipping: Client) -> None:
    """By the engine's clock, with the shipped configuration."""
    calls = Calls(failures=3)
    async with hosted(skipping, calls):
        result = await run(skipping, task())
    pauses = [b - a for a, b in zip(calls.times, calls.times[1:], strict=False)]
    assert 4 == result["attempts"]
    assert [1, 2, 4] == [round(pause.total_seconds()) for pause in pauses]


async def test_every_attempt_is_the_same_call(skipping: Client) -> None:
    """The task's id is the workflow's, so that the agent's key stays."""
    calls = Calls(failures=2)
    async with hosted(skipping, calls):
        await run(skipping, task())
    assert [calls.seen[0]] * 3 == calls.seen
    assert calls.infos[0].workflow_id == calls.seen[0].task_id


async def test_the_pause_that_an_attempt_asks_for_is_kept(skipping: Client) -> None:
    """Longer than any backoff."""
    calls = Calls(failures=1, error=lambda: failure(pause=120))
    async with hosted(skipping, calls):
        await run(skipping, task())
    assert 120 <= (calls.times[1] - calls.times[0]).total_seconds() < 130


async def test_used_up_retries_fail_the_task(skipping: Client) -> None:
    """Type and text are those of the last attempt."""
    calls = Calls(failures=9)
    async with hosted(skipping, calls):
        error = await failed(skipping, task())
    assert ("AgentFailed", "Failed after 4 attempts: the agent answered 500", True) == (
        error.type,
        error.message,
        error.non_retryable,
    )
    assert 4 == len(calls.seen)


async def test_a_failure_carries_the_outcome(skipping: Client) -> None:
    """Its details hold agent, attempts and the last attempt's time."""
    async with hosted(skipping, Calls(failures=9)):
        error = await failed(skipping, task(retry=retry(max_attempts=2)))
    [outcome] = [TaskOutcome.model_validate(each) for each in error.details]
    assert (AGENT, 2, 0.5, False) == (
        outcome.agent,
        outcome.attempts,
        outcome.execution_time,
        outcome.dead_letter,
    )
    assert [(1, "AgentFailed"), (2, "AgentFailed")] == [
        (each.attempt, each.outcome) for each in outcome.attempt_history
    ]


async def test_without_retries_there_is_one_attempt(skipping: Client) -> None:
    """max_retries 0."""
    calls = Calls(failures=9)
    async with hosted(skipping, calls):
        error = await failed(skipping, task(retry=retry(max_attempts=1)))
    assert (1, "Failed after 1 attempt: the agent answered 500") == (
        len(calls.seen),
        error.message,
    )


async def test_a_permanent_error_is_not_retried(skipping: Client) -> None:
    """One attempt, and the failure says so."""
    calls = Calls(failures=9, error=lambda: failure("AgentRejected", permanent=True))
    async with hosted(skipping, calls):
        error = await failed(skipping, task())
    assert (1, "AgentRejected", 1) == (len(calls.seen), error.type, error.details[0]["attempts"])


async def test_a_permanent_error_after_others_counts_them_all(skipping: Client) -> None:
    """The last attempt's number is the count."""
    calls = Calls(failures=9)
    calls.error = lambda: failure(permanent=len(calls.seen) == 3)
    async with hosted(skipping, calls):
        error = await failed(skipping, task())
    assert "Failed after 3 attempts: the agent answered 500" == error.message


async def test_a_task_leaves_unset_what_the_caller_left_unset(skipping: Client) -> None:
    """A Task with defaults travels as small as it was made."""
    async with hosted(skipping, Calls()):
        result = await run(skipping, Task(pattern="read_pdf", payload={}))
    assert AGENT == result["agent"]


async def test_an_hour_of_pauses_is_skipped(skipping: Client) -> None:
    """Attempts may be hours apart."""
    calls = Calls(failures=1, error=lambda: failure(pause=3500))
    async with hosted(skipping, calls):
        await run(skipping, task(deadline=7200.0))
    assert calls.times[1] - calls.times[0] >= timedelta(seconds=3500)
