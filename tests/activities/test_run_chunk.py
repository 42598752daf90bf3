"""What becomes of each item of a chunk, by what the agent does with it."""

from typing import Any

import pytest

from orchestrator.batches import ChunkReport, item_id
from orchestrator.models import Progress, Route, TaskState
from orchestrator.routing import agent_queue
from tests.activities.chunk_stage import BATCH, by_position, chunk, chunking, places
from tests.activities.stage import unserved
from tests.support.agents import Agent, Call, Reply
from tests.support.plans import retry

ONCE = retry(max_attempts=1)
FALLBACK = Route(agent="second", endpoint="/read", task_queue=agent_queue("second"))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def echo(call: Call) -> Reply:
    """An answer that tells whose it is."""
    return Reply(body={"n": call.body["n"]})


async def report_of(*replies: Reply, count: int = 1, **plan: Any) -> ChunkReport:
    """What a chunk tells whose every call is answered so."""
    async with Agent(*replies) as agent, chunking(agent.url) as chunker:
        report: ChunkReport = await chunker.run(chunk(count, **plan))
        assert count == len(agent.calls)
    return report


async def test_every_item_is_called_once() -> None:
    """And each has its own answer."""
    async with Agent(decide=echo) as agent, chunking(agent.url) as chunker:
        report = await chunker.run(chunk(60, first=100))
        outcomes = by_position(report)
    assert list(range(100, 160)) == sorted(outcomes)
    assert {n: {"n": n} for n in range(100, 160)} == {
        position: each.result for position, each in outcomes.items()
    }
    assert {(TaskState.COMPLETED, 1, agent.url, 200, False)} == {
        (each.state, each.attempt, each.instance, each.status, each.dead_letter)
        for each in outcomes.values()
    }
    assert 60 == len(agent.calls)
    assert ((), (), (), ()) == (report.unfinished, report.left, report.cancelled, report.recorded)


async def test_null_is_a_result() -> None:
    """As of any task."""
    [outcome] = (await report_of(Reply(body="null"))).outcomes
    assert (TaskState.COMPLETED, None, True) == (
        outcome.state,
        outcome.result,
        "result" in outcome.model_fields_set,
    )


async def test_a_call_carries_what_any_tasks_call_does() -> None:
    """The item's id is its task's; the agent's own headers are there too."""
    async with (
        Agent() as agent,
        chunking(agent.url, headers={"Authorization": "Bearer key"}) as chunker,
    ):
        await chunker.run(chunk(1, first=3, traceparent=TRACE))
        [call] = agent.calls
    task_id = item_id(BATCH, 3)
    assert ("/read", {"n": 3}) == (call.path, call.body)
    assert {
        "Idempotency-Key": task_id,
        "X-Task-ID": task_id,
        "X-Attempt": "1",
        "traceparent": TRACE,
        "Authorization": "Bearer key",
    }.items() <= dict(call.headers).items()
    assert "X-Deadline" in call.headers


async def test_without_a_trace_each_item_has_one_of_its_own() -> None:
    """Its trace id is the item's."""
    async with Agent() as agent, chunking(agent.url) as chunker:
        await chunker.run(chunk(2))
        traces = {call.headers["traceparent"].split("-")[1] for call in agent.calls}
    assert {item_id(BATCH, n).replace("-", "") for n in range(2)} == traces


async def test_what_no_attempt_would_mend_fails() -> None:
    """It is no dead letter, as with any task."""
    [outcome] = (await report_of(Reply(status=422, body="no such page"), dead_letter=True)).outcomes
    assert (TaskState.FAILED, "AgentRejected", False, 1, 422) == (
        outcome.state,
        outcome.error_type,
        outcome.dead_letter,
        outcome.attempt,
        outcome.status,
    )
    assert outcome.error is not None
    assert outcome.error.startswith("Failed after 1 attempt: ")
    assert "no such page" in outcome.error


async def test_an_answer_that_is_not_json_fails() -> None:
    """For good."""
    [outcome] = (await report_of(Reply(body=b"<html>"))).outcomes
    assert (TaskState.FAILED, "ReplyUnreadable") == (outcome.state, outcome.error_type)


async def test_what_another_attempt_may_mend_goes_on_alone() -> None:
    """With what was tried, and the pause of a first failure."""
    report = await report_of(Reply(status=503), retry=retry(initial_seconds=0.5))
    [each] = report.unfinished
    assert ((), 0, 0.5) == (report.outcomes, each.position, each.pause)
    assert (1, 1, 0, ["AgentFailed"], [503]) == (
        each.progress.sent,
        each.progress.made,
        each.progress.waits,
        [attempt.outcome for attempt in each.progress.attempts],
        [attempt.status for attempt in each.progress.attempts],
    )


@pytest.mark.parametrize(("asked", "pause"), [("7", 7), ("100000", 300)])
async def test_the_pause_is_the_one_that_the_agent_asked_for(asked: str, pause: float) -> None:
    """Within what the configuration allows."""
    [each] = (await report_of(Reply(status=429, headers={"Retry-After": asked}))).unfinished
    assert pause == each.pause


async def test_an_agent_that_nobody_serves_is_tried_again() -> None:
    """There was an attempt, though it never got there."""
    with unserved() as url:
        async with chunking(url) as chunker:
            [each] = (await chunker.run(chunk(1))).unfinished
    assert ["AgentUnreachable"] == [attempt.outcome for attempt in each.progress.attempts]


async def test_a_call_takes_no_longer_than_an_attempt_may() -> None:
    """It is cut off."""
    async with Agent(Reply(hang=True)) as agent, chunking(agent.url) as chunker:
        [each] = (await chunker.run(chunk(1, attempt_timeout=0.1))).unfinished
        await agent.calls[0].abandonment()
    assert ["AgentTimedOut"] == [attempt.outcome for attempt in each.progress.attempts]


@pytest.mark.parametrize("kept", [True, False])
async def test_the_last_attempt_makes_a_dead_letter(*, kept: bool) -> None:
    """Where the configuration keeps them."""
    report = await report_of(Reply(status=500), retry=ONCE, dead_letter=kept)
    [outcome] = report.outcomes
    assert ((), TaskState.FAILED, "AgentFailed", kept, 1) == (
        report.unfinished,
        outcome.state,
        outcome.error_type,
        outcome.dead_letter,
        outcome.attempt,
    )


async def test_a_fallback_is_asked_after_the_last_attempt() -> None:
    """By the task of its own that the item becomes."""
    report = await report_of(Reply(status=500), retry=ONCE, fallbacks=(FALLBACK,))
    assert ((), [0]) == (report.outcomes, places(report.unfinished))


async def test_outcomes_of_all_kinds_go_together() -> None:
    """Each item has one."""
    kinds = (Reply(), Reply(status=404), Reply(status=503), Reply(reset=True))
    async with (
        Agent(decide=lambda call: kinds[call.body["n"] % 4]) as agent,
        chunking(agent.url) as chunker,
    ):
        report = await chunker.run(chunk(20))
        assert 20 == len(agent.calls)
    done, failed = (
        dict.fromkeys(range(0, 20, 4), "completed"),
        dict.fromkeys(range(1, 20, 4), "failed"),
    )
    assert done | failed == {n: each.state for n, each in by_position(report).items()}
    assert [n for n in range(20) if n % 4 > 1] == places(report.unfinished)


async def test_what_was_done_before_a_worker_was_lost_is_not_done_again() -> None:
    """The heartbeats told of it; the attempts of the others count the one that was lost."""
    async with Agent(decide=echo) as agent, chunking(agent.url) as chunker:
        before = await chunker.run(chunk(2))
        going_on = (await report_of(Reply(status=503))).unfinished[0]
        after = before.model_copy(
            update={
                "unfinished": (going_on.model_copy(update={"position": 2}),),
                "recorded": (3,),
            }
        )
        agent.calls.clear()
        report = await chunker.run(chunk(7), dispatch=2, after=after)
        calls = {call.body["n"]: call.headers["X-Attempt"] for call in agent.calls}
    assert {4: "2", 5: "2", 6: "2"} == calls
    assert {0: 1, 1: 1, 4: 2, 5: 2, 6: 2} == {
        position: each.attempt for position, each in by_position(report).items()
    }
    assert ([2], (3,)) == (places(report.unfinished), report.recorded)


async def test_an_attempt_that_a_lost_worker_may_have_made_counts() -> None:
    """So the next is the last here."""
    async with Agent(Reply(status=500)) as agent, chunking(agent.url) as chunker:
        report = await chunker.run(chunk(1, retry=retry(max_attempts=2)), dispatch=2)
    assert [(TaskState.FAILED, 2)] == [(each.state, each.attempt) for each in report.outcomes]


async def test_after_two_lost_workers_the_rest_goes_on_alone() -> None:
    """One of the items may be what ends the workers: nothing is called together with it."""
    async with Agent() as agent, chunking(agent.url) as chunker:
        before = await chunker.run(chunk(1))
        agent.calls.clear()
        report = await chunker.run(chunk(4), dispatch=3, after=before)
        assert [] == agent.calls
    assert ([0], [1, 2, 3]) == (places(report.outcomes), places(report.unfinished))
    assert {(Progress(), 0.0)} == {(each.progress, each.pause) for each in report.unfinished}
