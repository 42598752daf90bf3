"""Many dead letters at once: filters, pace, crashes, and who is left alone; on the real engine."""

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from orchestrator.dead_letters import (
    BulkAction,
    BulkState,
    BulkTally,
    DeadLetterOrder,
    RedriveAgent,
)
from orchestrator.engine.listing import InvalidCursor
from orchestrator.errors import DeadLetterNotFound, RedriveNotFound
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE
from tests.support.agents import Reply
from tests.support.stack import eventually
from tests.workflows.dead_letter_stage import (
    ENDED,
    Stage,
    entry,
    failing,
    idle,
    result_of,
)
from tests.workflows.recovery import Recovery


async def test_each_field_of_a_filter_selects(client: Client) -> None:
    """In lists and in counts; pages hold every dead letter once."""
    async with failing(client) as stage:
        urgent = await stage.fail(tenant="acme", priority=5)
        others = await stage.fail(2, tenant="school")
        await stage.listed(*urgent, *others)
        found = {}
        for name, value in {
            "tenant": "acme",
            "priority": 5,
            "pattern": stage.name,
            "error_type": "AgentFailed",
            "since": ENDED,
            "until": datetime.now(UTC) + timedelta(minutes=5),
        }.items():
            chosen = stage.own.model_copy(update={name: value})
            found[name] = await stage.dead_letters.count(chosen)
        nothing = {
            name: await stage.dead_letters.count(stage.own.model_copy(update={name: value}))
            for name, value in {
                "tenant": "o'hara\\",
                "error_type": "AgentTimedOut",
                "until": ENDED,
                "since": datetime.now(UTC) + timedelta(minutes=5),
            }.items()
        }
        seen: list[str] = []
        cursor = None
        while True:
            page = await stage.dead_letters.page(stage.own, 2, cursor)
            seen += [each.task_id for each in page.dead_letters]
            cursor = page.next_cursor
            if cursor is None:
                break
        with pytest.raises(InvalidCursor):
            await stage.dead_letters.page(stage.own, 2, "nonsense")
    assert {
        "tenant": 1,
        "priority": 1,
        "pattern": 3,
        "error_type": 3,
        "since": 3,
        "until": 3,
    } == found
    assert {0} == set(nothing.values())
    assert sorted([*urgent, *others]) == sorted(seen)


async def test_a_dead_letter_is_shown_while_every_worker_is_down(client: Client) -> None:
    """Its request and its attempts come from the engine's own record."""
    async with idle(client) as stage:
        async with stage.workflows(), stage.agents():
            [task_id] = await stage.fail(metadata={"source": "web"})
        detail = await stage.dead_letters.get(task_id)
    assert {"pattern": stage.name, "payload": {"n": 1}, "metadata": {"source": "web"}} == (
        detail.request
    )
    assert ["AgentFailed"] == [attempt.outcome for attempt in detail.attempt_history]
    assert (f"exact pattern {stage.name}", None) == (detail.chosen_by, detail.expires_at)
    assert "disk full" in detail.error


async def test_an_unknown_dead_letter_is_not_found(client: Client) -> None:
    """Nor is a task that never failed, nor an unknown order about many."""
    async with idle(client) as stage:
        with pytest.raises(DeadLetterNotFound):
            await stage.dead_letters.get("never-heard-of-it")
        with pytest.raises(DeadLetterNotFound):
            await stage.dead_letters.discard("never-heard-of-it", DeadLetterOrder())
        with pytest.raises(RedriveNotFound):
            await stage.redrives.status("never-heard-of-it")


async def test_a_batchs_items_are_found_and_redriven(client: Client) -> None:
    """Only those of the batch, which each of them names."""
    batch = str(uuid4())
    async with failing(client) as stage:
        ids = await stage.fail(2, batch=batch)
        others = await stage.fail(1)
        await stage.listed(*ids, *others)
        chosen = stage.own.model_copy(update={"batch": batch})
        found = await stage.dead_letters.page(chosen, 10)
        [other] = [
            each
            for each in (await stage.dead_letters.page(stage.own, 10)).dead_letters
            if each.task_id in others
        ]
        stage.agent.script(Reply())
        done = await stage.carried_out((await stage.bulk(filter=chosen)).redrive_id)
        await stage.listed(*others)
    assert sorted(ids) == sorted(each.task_id for each in found.dead_letters)
    assert {batch} == {each.model_dump()["batch"] for each in found.dead_letters}
    assert "batch" not in other.model_dump()
    assert (BulkState.COMPLETED, 2) == (done.state, done.done)


async def test_many_are_redriven_at_the_rate(client: Client) -> None:
    """Six at ten a second take half a second; all complete under their ids."""
    async with failing(client) as stage:
        ids = await stage.fail(6)
        stage.agent.script(Reply())
        stage.agent.calls.clear()
        began = time.monotonic()
        order = await stage.bulk(rate=10.0, matched=6)
        done = await stage.carried_out(order.redrive_id)
        seconds = time.monotonic() - began
        ends = [(await stage.ended(task_id)).status for task_id in ids]
        await stage.listed()
    assert (BulkState.COMPLETED, 6, 6, 0, 0) == (
        done.state,
        done.matched,
        done.done,
        done.failed,
        done.skipped,
    )
    assert [TaskState.COMPLETED] * 6 == ends
    assert {1} == {len(stage.agent.calls_of(task_id)) for task_id in ids}
    assert seconds >= 0.5


async def test_many_are_discarded_by_a_filter(client: Client) -> None:
    """The others stay."""
    async with failing(client) as stage:
        await stage.fail(2, tenant="acme")
        [kept] = [
            task_id
            for task_id in [await stage.submit(tenant="school")]
            if (await stage.ended(task_id)).dead_letter
        ]
        chosen = stage.own.model_copy(update={"tenant": "acme"})
        order = await stage.bulk(BulkAction.DISCARD, filter=chosen)
        done = await stage.carried_out(order.redrive_id)
        await stage.listed(kept)
    assert (BulkAction.DISCARD, 2) == (done.action, done.done)


async def test_tasks_that_fail_again_are_not_redriven_in_a_circle(client: Client) -> None:
    """Each is run once more by one order, also by a worker that finds new dead letters there."""
    async with idle(client) as stage, stage.workflows(), stage.agents():
        ids = await stage.fail(6)
        stage.agent.calls.clear()
        async with stage.redriver():
            order = await stage.bulk(rate=10.0, matched=6)
            await stage.agent.called(3)
        await stage.listed(*ids)
        async with stage.redriver():
            await stage.carried_out(order.redrive_id)
        for task_id in ids:
            await stage.ended(task_id)
        await stage.listed(*ids)
    assert {1} == {len(stage.agent.calls_of(task_id)) for task_id in ids}


async def test_what_is_refused_is_counted_and_named(client: Client) -> None:
    """The rest is redriven all the same."""
    async with failing(client) as stage:
        await stage.fail(1)
        lost = entry(task={"pattern": "gone", "payload": {}})
        task_id = str(uuid4())
        handle = await client.start_workflow(
            "DeadLetter",
            lost,
            id=f"dead-letter/{task_id}",
            task_queue=WORKFLOW_QUEUE,
            search_attributes=(
                await client.get_workflow_handle(
                    f"dead-letter/{stage.agent.calls[0].headers['X-Task-ID']}"
                ).describe()
            ).typed_search_attributes,
        )

        async def both() -> bool:
            return await stage.dead_letters.count(stage.own) == 2

        await eventually(both)
        stage.agent.script(Reply())
        done = await stage.carried_out((await stage.bulk()).redrive_id)
        await handle.terminate()
    assert (1, 1) == (done.done, done.failed)
    assert f"{task_id}: Unknown pattern 'gone'" in (done.last_failure or "")


async def test_an_order_goes_on_when_its_worker_stops(client: Client) -> None:
    """Another takes over at once; each task runs once more, and all are counted."""
    async with idle(client) as stage, stage.workflows(), stage.agents():
        ids = await stage.fail(10)
        stage.agent.script(Reply())
        stage.agent.calls.clear()
        async with stage.redriver():
            order = await stage.bulk(rate=3.0, matched=10)
            await stage.agent.called(3)
        before = len(stage.agent.calls)
        async with stage.redriver():
            done = await stage.carried_out(order.redrive_id)
        for task_id in ids:
            await stage.ended(task_id)
    assert 3 <= before < 10
    assert (BulkState.COMPLETED, 10, 0) == (done.state, done.done, done.failed)
    assert {1} == {len(stage.agent.calls_of(task_id)) for task_id in ids}


async def test_an_order_is_stopped_by_cancelling_it(client: Client) -> None:
    """What it did stays done, and is told."""
    async with failing(client) as stage:
        await stage.fail(6)
        stage.agent.script(Reply())
        stage.agent.calls.clear()
        order = await stage.bulk(rate=2.0, matched=6)
        await stage.agent.called()
        await stage.redrives.cancel(order.redrive_id)
        done = await stage.carried_out(order.redrive_id)
        again = await stage.redrives.cancel(order.redrive_id)
    assert BulkState.CANCELLED == done.state == again.state
    assert 1 <= done.done < 6


async def test_an_order_waits_for_its_worker(client: Client) -> None:
    """It is durable: nothing is lost before one is there."""
    async with idle(client) as stage, stage.workflows(), stage.agents():
        [task_id] = await stage.fail()
        stage.agent.script(Reply())
        order = await stage.bulk(matched=1)
        waiting = await stage.redrives.status(order.redrive_id)
        async with stage.redriver():
            done = await stage.carried_out(order.redrive_id)
        await stage.ended(task_id)
    assert (BulkState.RUNNING, 1, 0) == (waiting.state, waiting.matched, waiting.done)
    assert (BulkState.COMPLETED, 1) == (done.state, done.done)


async def recovered(stage: Stage) -> BulkTally:
    """What the redrive of an agent that is available again did."""
    async with Worker(stage.client, task_queue="recoveries", workflows=[Recovery]):
        handle = await stage.client.start_workflow(
            "Recovery",
            RedriveAgent(agent=stage.name, rate=100.0),
            id=str(uuid4()),
            task_queue="recoveries",
        )
        return BulkTally.model_validate(await result_of(handle))


async def test_an_agents_dead_letters_are_redriven_when_it_is_back(client: Client) -> None:
    """All that can be run again without harm."""
    async with failing(client) as stage:
        [task_id] = await stage.fail()
        stage.agent.script(Reply())
        tally = await recovered(stage)
        status = await stage.ended(task_id)
    assert (1, TaskState.COMPLETED) == (tally.done, status.status)


async def test_what_an_agent_may_have_done_is_left_to_people(client: Client) -> None:
    """It is not idempotent, and got the request."""
    async with failing(client, idempotent=False) as stage:
        [task_id] = await stage.fail()
        tally = await recovered(stage)
        kept = await stage.dead_letters.get(task_id)
    assert (0, 1, "OutcomeUnknown") == (tally.done, tally.skipped, kept.error_type)
    assert 1 == len(stage.agent.calls_of(task_id))
