"""A rule's agents one after another: whom a task goes to, and whom it waits for."""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from orchestrator.models import TaskState
from orchestrator.routing import agent_queue
from orchestrator.statuses import TaskStatus
from tests.support.agents import Agent, Reply
from tests.workflows.agents_stage import Stage, serving
from workflows import options

FAILS, DONE = Reply(status=500), Reply(body={"by": "another"})
INLINE = {"dispatch": "inline"}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call waits for a second before the next agent is asked.

    The engine is that late with a retry, too: tests with retries leave it at what it is.
    """
    monkeypatch.setattr(options, "FALLBACK_AFTER", timedelta(seconds=1))


def course(stage: Stage, status: TaskStatus) -> list[tuple[int, int, str]]:
    """The attempts: which of the stage's agents, its how manieth, and what came of it."""
    return [
        (stage.names.index(each.agent), each.attempt, each.outcome)
        for each in status.attempt_history or ()
    ]


@pytest.mark.parametrize("rule", [{}, INLINE], ids=["queued", "inline"])
async def test_the_next_agent_is_asked_when_the_first_has_used_up_its_attempts(
    client: Client, rule: dict[str, Any]
) -> None:
    """With all attempts of its own, the same key, and the whole history in the end."""
    second = Agent(FAILS, DONE)
    async with serving(client, Agent(FAILS), second, Agent(), rule=rule) as stage:
        task_id = await stage.submit()
        status = await stage.ended(task_id)
    assert (TaskState.COMPLETED, {"by": "another"}, stage.names[1], 4) == (
        status.status,
        status.result,
        status.agent,
        status.attempts,
    )
    assert [
        (0, 1, "AgentFailed"),
        (0, 2, "AgentFailed"),
        (1, 1, "AgentFailed"),
        (1, 2, "success"),
    ] == course(stage, status)
    assert [2, 2, 0] == [len(agent.calls_of(task_id)) for agent in stage.agents]


async def test_a_refusal_is_not_asked_again_of_another(client: Client) -> None:
    """What one finds wrong is wrong."""
    async with serving(client, Agent(Reply(status=422)), Agent()) as stage:
        status = await stage.ended(await stage.submit())
    assert (TaskState.FAILED, "AgentRejected", []) == (
        status.status,
        status.error_type,
        stage.agents[1].calls,
    )


async def test_when_all_have_failed_the_task_has(client: Client) -> None:
    """With what the last of them said, and every attempt."""
    async with serving(client, Agent(FAILS), Agent(Reply(status=503))) as stage:
        status = await stage.ended(await stage.submit())
    assert (TaskState.FAILED, "AgentFailed", stage.names[1], 4) == (
        status.status,
        status.error_type,
        status.agent,
        status.attempts,
    )
    assert "Failed after 4 attempts" in (status.error or "")
    assert "503" in (status.error or "")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("rule", [{}, INLINE], ids=["queued", "inline"])
async def test_an_agent_that_is_not_available_is_passed_over(
    client: Client, rule: dict[str, Any]
) -> None:
    """Without a call, and without a wait for it."""
    async with serving(client, Agent(), Agent(DONE), rule=rule) as stage:
        stage.shut(0)
        status = await stage.ended(await stage.submit())
    assert (TaskState.COMPLETED, stage.names[1], 1, []) == (
        status.status,
        status.agent,
        status.attempts,
        stage.agents[0].calls,
    )


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("rule", [{}, INLINE], ids=["queued", "inline"])
async def test_when_none_is_available_the_task_waits_for_the_first(
    client: Client, rule: dict[str, Any]
) -> None:
    """And completes when it is back, though others are not."""
    async with serving(client, Agent(DONE), Agent(), rule=rule) as stage:
        stage.shut()
        task_id = await stage.submit()
        await stage.asked_for(task_id, 1 if rule else 3)
        stage.reset(0)
        status = await stage.ended(task_id)
    assert (TaskState.COMPLETED, stage.names[0], 1) == (
        status.status,
        status.agent,
        status.attempts,
    )


@pytest.mark.usefixtures("soon")
async def test_when_the_others_have_failed_the_task_waits_for_who_was_away(
    client: Client,
) -> None:
    """It has all its attempts left."""
    once = {"max_retries": 0}
    async with serving(client, Agent(DONE), Agent(FAILS), error_recovery=once) as stage:
        stage.shut(0)
        task_id = await stage.submit()
        await stage.asked_for(task_id, 3)
        stage.reset(0)
        status = await stage.ended(task_id)
    assert TaskState.COMPLETED is status.status
    assert [(1, 1, "AgentFailed"), (0, 1, "success")] == course(stage, status)


@pytest.mark.usefixtures("soon")
async def test_an_agent_that_took_no_call_leaves_the_history_as_it_was(client: Client) -> None:
    """The attempts before it are told in the end."""
    recovery = {"max_retries": 0}
    async with serving(
        client, Agent(FAILS), Agent(), Agent(DONE), error_recovery=recovery
    ) as stage:
        stage.shut(1)
        status = await stage.ended(await stage.submit())
    assert [(0, 1, "AgentFailed"), (2, 1, "success")] == course(stage, status)


@pytest.mark.usefixtures("soon")
async def test_a_task_waits_no_longer_than_its_deadline(client: Client) -> None:
    """Nothing was tried, and it says so."""
    async with serving(client, Agent(), Agent()) as stage:
        stage.shut()
        status = await stage.ended(await stage.submit(timeout=1.5))
    assert (TaskState.FAILED, "DeadlineExceeded", 0) == (
        status.status,
        status.error_type,
        status.attempts,
    )
    assert (status.error or "").startswith("The deadline of 1.5 s passed after 0 attempts")


async def test_the_deadline_is_the_tasks_and_not_each_agents(client: Client) -> None:
    """The second has what the first has left."""
    once = {"max_retries": 0}
    async with serving(client, Agent(FAILS), Agent(Reply(hang=True)), error_recovery=once) as stage:
        task_id = await stage.submit(timeout=4.0)
        status = await stage.ended(task_id)
        described = await client.get_workflow_handle(task_id).describe()
    assert described.close_time is not None
    assert (described.close_time - described.start_time).total_seconds() < 7.5
    assert ("AgentTimedOut", 2) == (status.error_type, status.attempts)


async def test_an_agent_that_must_not_be_called_twice_has_no_stand_in_either(
    client: Client,
) -> None:
    """It may have done the work; a fallback would do it again."""
    async with serving(client, Agent(Reply(reset=True)), Agent(), once=[0]) as stage:
        status = await stage.ended(await stage.submit())
    assert (TaskState.FAILED, "OutcomeUnknown", 1, []) == (
        status.status,
        status.error_type,
        status.attempts,
        stage.agents[1].calls,
    )


async def test_a_fallback_that_must_not_be_called_twice_is_called_by_its_queue(
    client: Client,
) -> None:
    """An inline call may be made again when its worker is lost."""
    recovery = {"max_retries": 0}
    async with serving(
        client, Agent(FAILS), Agent(DONE), rule=INLINE, once=[1], error_recovery=recovery
    ) as stage:
        task_id = await stage.submit()
        status = await stage.ended(task_id)
        calls = await stage.scheduled(task_id)
    assert (TaskState.COMPLETED, stage.names[1]) == (status.status, status.agent)
    assert [agent_queue(stage.names[1])] == [each.task_queue.name for each in calls]
