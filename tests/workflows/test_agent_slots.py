"""A worker's slots are what its agent's pool can take: the rest waits in the engine's queue."""

import asyncio
from typing import Any

from temporalio.client import Client

from orchestrator.models import BlockedBy, TaskState
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.statuses import TaskStatus
from tests.support.agents import Agent, Reply
from tests.workflows.agents_stage import WAIT_SECONDS, idle, serving

# A breaker that closes lets one call through at a time, for longer than any test.
ONE_BY_ONE: dict[str, Any] = {
    "load_balancing": {"slow_start": 3600, "max_connections_per_agent": 20},
    "error_recovery": {"circuit_breaker": {"half_open_permits": 1}},
}
SLOW = Reply(delay=0.05)


def tries(statuses: list[TaskStatus]) -> set[tuple[TaskState, int | None]]:
    """How the tasks have ended, and after how many attempts."""
    return {(each.status, each.attempts) for each in statuses}


async def test_a_backlog_goes_out_most_urgent_first_when_the_agent_is_back(
    client: Client,
) -> None:
    """One after another, and none has lost an attempt by waiting."""
    priorities = [1, 5, 3, 2, 4, 1, 5, 3]
    async with idle(client, Agent(SLOW), **ONE_BY_ONE) as stage:
        stage.shut()
        async with stage.workflows(), stage.worker():
            ids = [await stage.submit(priority=each, payload={"p": each}) for each in priorities]
            await stage.waiting(len(ids))
            before = await asyncio.gather(*map(stage.tasks.status, ids))
            assert [] == stage.agents[0].calls
            stage.reset()
            after = await stage.all_ended(ids)
    assert {(TaskState.QUEUED, 0)} == tries(before)
    assert {(TaskState.COMPLETED, 1)} == tries(after)
    assert [5, 5, 4, 3, 3, 2, 1, 1] == [call.body["p"] for call in stage.agents[0].calls]
    assert 1 == stage.agents[0].most_at_once


async def test_an_agent_that_is_back_is_not_overrun(client: Client) -> None:
    """What the ramp allows is in flight, and no more."""
    three = ONE_BY_ONE | {"error_recovery": {"circuit_breaker": {"half_open_permits": 3}}}
    async with idle(client, Agent(SLOW), **three) as stage:
        stage.shut()
        async with stage.workflows(), stage.worker():
            ids = [await stage.submit() for _ in range(15)]
            await stage.waiting(len(ids))
            stage.reset()
            after = await stage.all_ended(ids)
    assert {(TaskState.COMPLETED, 1)} == tries(after)
    assert 3 == stage.agents[0].most_at_once


async def test_a_backlog_waits_for_the_trials_of_a_breaker_that_has_opened(
    client: Client,
) -> None:
    """Those that fail cost no attempt, and only permits of them are made at a time."""
    recovery = {
        "max_retries": 0,
        "circuit_breaker_threshold": 1,
        "circuit_breaker_timeout": 0.3,
        "circuit_breaker": {"half_open_permits": 2, "open_backoff": 1},
    }
    down, agent = Reply(status=503, delay=0.02), Agent()
    async with idle(client, agent, error_recovery=recovery) as stage:
        agent.script(down)
        async with stage.workflows(), stage.worker():
            first = await stage.ended(await stage.submit())
            assert BreakerState.CLOSED is not stage.pool().breaker_state
            ids = [await stage.submit() for _ in range(12)]
            await agent.called(5)
            at_once = agent.most_at_once
            agent.script(Reply())
            after = await stage.all_ended(ids)
    assert (TaskState.FAILED, "AgentFailed") == (first.status, first.error_type)
    assert at_once <= 2
    assert {TaskState.COMPLETED} == {each.status for each in after}


async def test_an_agents_connections_hold_in_each_worker(client: Client) -> None:
    """Whatever waits."""
    limit: dict[str, Any] = {"load_balancing": {"max_connections_per_agent": 2}}
    async with serving(client, Agent(SLOW), **limit) as stage:
        ids = [await stage.submit() for _ in range(10)]
        after = await stage.all_ended(ids)
    assert {(TaskState.COMPLETED, 1)} == tries(after)
    assert 2 == stage.agents[0].most_at_once


async def test_slots_come_back_whatever_becomes_of_the_calls(client: Client) -> None:
    """Failed, refused, timed out, cancelled: more of each than there are slots."""
    replies = (Reply(status=500), Reply(status=404), Reply(hang=True), Reply(reset=True))
    agent = Agent(decide=lambda call: replies[call.body["n"] % 4])
    limit: dict[str, Any] = {"load_balancing": {"max_connections_per_agent": 2}}
    recovery = {"max_retries": 0}
    async with serving(
        client, agent, rule={"timeout": 0.1}, error_recovery=recovery, **limit
    ) as stage:
        ids = [await stage.submit(payload={"n": number}) for number in range(12)]
        await stage.all_ended(ids)
        agent.script(Reply())
        last = await stage.ended(await stage.submit())
    assert TaskState.COMPLETED is last.status


async def test_a_worker_stops_while_it_waits_for_a_slot(client: Client) -> None:
    """Nobody knows when there will be one."""
    async with idle(client) as stage:
        stage.shut()
        worker = stage.worker()
        running = asyncio.create_task(worker.run())
        async with stage.workflows():
            task_id = await stage.submit()
            await stage.waiting(1)
        async with asyncio.timeout(WAIT_SECONDS):
            await worker.shutdown()
            await running
        await client.get_workflow_handle(task_id).terminate()
    assert [] == stage.agents[0].calls


async def test_a_worker_stops_when_its_every_slot_is_free(client: Client) -> None:
    """It polls with some of them."""
    async with idle(client) as stage:
        worker = stage.worker()
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(WAIT_SECONDS), stage.workflows():
            await stage.ended(await stage.submit())
            await worker.shutdown()
            await running


async def test_a_task_that_waits_for_a_breaker_says_so(client: Client) -> None:
    """Where the worker found out too late to leave it in the queue: why, and until when."""
    recovery = {"circuit_breaker_threshold": 1, "circuit_breaker_timeout": 60}
    async with serving(client, Agent(Reply(status=503)), error_recovery=recovery) as stage:
        task_id = await stage.submit()
        status = await stage.until(task_id, lambda found: found.blocked_by is BlockedBy.BREAKER)
        await client.get_workflow_handle(task_id).terminate()
    assert (TaskState.RUNNING, 1, ["AgentFailed"]) == (
        status.status,
        status.attempts,
        [each.outcome for each in status.attempt_history or ()],
    )
    assert status.until is not None
    assert 50 < (status.until - status.updated_at).total_seconds() < 75
