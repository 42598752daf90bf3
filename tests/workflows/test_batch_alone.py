"""Items of a batch that are tasks of their own, and agents that take no calls for a while."""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from orchestrator.batches import BatchTally, item_id
from orchestrator.models import TaskState
from tests.support.agents import Agent, Reply
from tests.workflows.batch_stage import (
    batching,
    calls_by_item,
    echo,
    numbered,
    recorded,
    replayed,
    start,
    tally_of,
    told,
)
from workflows import options

METERED = {"default_rate": 6000, "burst_size": 10, "mode": "queue"}
DOWN = Reply(status=503)


async def test_an_agent_that_its_queue_meters_is_called_by_single_calls(client: Client) -> None:
    """So the engine paces them."""
    async with batching(client, Agent(decide=echo), rate_limiting=METERED) as stage:
        handle = await start(stage, numbered(stage, 4))
        tally, found = await tally_of(handle), await told(handle)
        status = await stage.tasks.status(item_id(handle.id, 2))
    assert BatchTally(total=4, completed=4) == tally
    assert ({item_id(handle.id, n) for n in range(4)}, []) == (set(found.alone), found.chunks)
    assert ({"n": 2}, handle.id) == (status.result, status.batch_id)


async def test_an_agent_that_must_not_be_called_twice_is_called_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its worker fell silent in the middle of the call."""
    monkeypatch.setattr(options, "HEARTBEAT_TIMEOUT", timedelta(seconds=0.7))
    monkeypatch.setattr("activities.call_agent.HEARTBEAT_SECONDS", 600)
    async with batching(client, Agent(Reply(hang=True)), once=[0]) as stage:
        handle = await start(stage, numbered(stage, 3))
        tally, found = await tally_of(handle), await told(handle)
        status = await stage.tasks.status(item_id(handle.id, 0))
        calls = calls_by_item(stage.agents[0], handle.id, 3)
    assert (BatchTally(total=3, failed=3), []) == (tally, found.chunks)
    assert [1, 1, 1] == calls
    assert "OutcomeUnknown" == status.error_type


async def test_a_fallback_takes_the_chunk_when_the_agent_takes_no_calls(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item is called there once."""
    monkeypatch.setattr(options, "FALLBACK_AFTER", timedelta(seconds=0.5))
    async with batching(client, Agent(), Agent(decide=echo)) as stage:
        stage.shut(0)
        handle = await start(stage, numbered(stage, 5))
        tally, found = await tally_of(handle), await told(handle)
        status = await stage.tasks.status(item_id(handle.id, 4))
        await replayed(handle)
    assert BatchTally(total=5, completed=5) == tally
    assert ([], [1] * 5) == (
        stage.agents[0].calls,
        calls_by_item(stage.agents[1], handle.id, 5),
    )
    assert ([], {"n": 4}, stage.names[1]) == (found.alone, status.result, status.agent)


async def test_a_fallback_is_asked_for_items_that_the_agent_fails(client: Client) -> None:
    """After all attempts there, one of which was in the chunk."""
    agents = Agent(Reply(status=500)), Agent(decide=echo)
    async with batching(client, *agents) as stage:
        handle = await start(stage, numbered(stage, 3))
        tally = await tally_of(handle)
        status = await stage.tasks.status(item_id(handle.id, 1))
    assert BatchTally(total=3, completed=3) == tally
    assert [[2] * 3, [1] * 3] == [calls_by_item(agent, handle.id, 3) for agent in agents]
    assert (stage.names[1], {"n": 1}) == (status.agent, status.result)
    assert ["AgentFailed", "AgentFailed", "success"] == [
        each.outcome for each in status.attempt_history or ()
    ]


async def test_a_fallback_that_fails_an_item_tries_it_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent that takes no calls loses nothing by it."""
    monkeypatch.setattr(options, "FALLBACK_AFTER", timedelta(seconds=0.5))
    async with batching(client, Agent(), Agent(DOWN, Reply())) as stage:
        stage.shut(0)
        handle = await start(stage, numbered(stage, 2))
        tally = await tally_of(handle)
    assert BatchTally(total=2, completed=2) == tally
    assert ([], [2, 2]) == (stage.agents[0].calls, calls_by_item(stage.agents[1], handle.id, 2))


async def test_a_batch_waits_in_the_queue_while_the_agent_takes_no_calls(client: Client) -> None:
    """It is asked for once, so the history does not grow; then it goes on."""
    async with batching(client) as stage:
        stage.shut()
        handle = await start(stage, numbered(stage, 30))
        await stage.waiting(1)
        before = await stage.tasks.status(item_id(handle.id, 7))
        assert [] == stage.agents[0].calls
        stage.reset()
        tally, found = await tally_of(handle), await told(handle)
    assert TaskState.QUEUED is before.status
    assert (BatchTally(total=30, completed=30), 1) == (tally, len(found.chunks))
    assert {1} == set(calls_by_item(stage.agents[0], handle.id, 30))


async def test_an_agent_that_fails_for_a_while_gets_all_in_the_end(client: Client) -> None:
    """Its breaker opens, trials fail, and it closes: each item ends once, within its attempts."""
    recovery: dict[str, Any] = {
        "max_retries": 2,
        "circuit_breaker_threshold": 2,
        "circuit_breaker_timeout": 0.2,
        "circuit_breaker": {"half_open_permits": 1, "open_backoff": 1},
    }
    connections = {"slow_start": 0, "max_connections_per_agent": 2}
    agent = Agent(DOWN)
    async with batching(
        client, agent, error_recovery=recovery, load_balancing=connections
    ) as stage:
        handle = await start(stage, numbered(stage, 40))
        await agent.called(5)
        agent.behave(echo)
        tally, found = await tally_of(handle), await told(handle)
        await replayed(handle)
    assert BatchTally(total=40, completed=40) == tally
    alone = {n for n in range(40) if item_id(handle.id, n) in found.alone}
    assert set(range(40)) - alone == set(found.positions(TaskState.COMPLETED))
    assert len(alone) < 20


async def test_an_item_whose_id_is_taken_does_not_stop_the_batch(client: Client) -> None:
    """A task that somebody started by hand under it keeps it; the item counts as failed."""
    async with batching(client, Agent(Reply(hang=True)), once=[0]) as stage:
        name = "taken"
        blocker = await client.start_workflow(
            "OrchestrateTask",
            {"pattern": stage.names[0], "payload": {}},
            id=f"{name}.1",
            task_queue="orchestrator",
        )
        await stage.agents[0].called(1)
        handle = await start(stage, numbered(stage, 3), name)
        await stage.agents[0].called(3)
        stage.agents[0].release()
        tally = await tally_of(handle)
        await blocker.result()
    assert BatchTally(total=3, completed=2, failed=1) == tally


async def test_the_task_of_an_item_that_ends_badly_by_itself_counts_as_failed(
    client: Client,
) -> None:
    """As when somebody terminates it."""
    async with batching(client, Agent(Reply(hang=True)), once=[0]) as stage:
        handle = await start(stage, numbered(stage, 2))
        await recorded(handle, "child_workflow_execution_started_event_attributes", 2)
        await client.get_workflow_handle(item_id(handle.id, 0)).terminate()
        await client.get_workflow_handle(item_id(handle.id, 1)).cancel()
        tally = await tally_of(handle)
    assert BatchTally(total=2, failed=1, cancelled=1) == tally
