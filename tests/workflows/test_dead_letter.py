"""A task that failed for good is kept, and run again or given up, on the real engine."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.common import Priority
from temporalio.exceptions import ApplicationError

from orchestrator.dead_letters import DeadLetterOrder, Resolution, Resolved, dead_letter_id
from orchestrator.engine import search_attributes
from orchestrator.errors import DeadLetterNotFound, OrderRefused
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE
from tests.support.agents import Reply
from tests.support.stack import eventually
from tests.workflows.dead_letter_stage import (
    FAILS,
    details,
    entry,
    failing,
    result_of,
    start,
)

ORDER = DeadLetterOrder(reason="disk replaced", by="ops")


async def test_an_exhausted_task_waits_among_the_dead_letters(client: Client) -> None:
    """With all that a list says of it."""
    async with failing(client) as stage:
        [task_id] = await stage.fail(tenant="acme")
        [item] = (await stage.dead_letters.page(stage.own, 10)).dead_letters
        status = await stage.tasks.status(task_id)
    assert (task_id, stage.name, stage.name, "acme", 2) == (
        item.task_id,
        item.agent,
        item.pattern,
        item.tenant,
        item.priority,
    )
    assert ("AgentFailed", 1, 1) == (item.error_type, item.attempts, item.runs)
    assert "disk full" in item.error
    assert status.created_at == item.created_at
    assert item.created_at < item.failed_at


async def test_a_task_is_kept_only_where_that_is_configured(client: Client) -> None:
    """Else it just fails."""
    async with failing(client, dead_letter_queue=False) as stage:
        status = await stage.ended(await stage.submit())
        with pytest.raises(DeadLetterNotFound):
            await stage.dead_letters.get(status.task_id)
    assert (TaskState.FAILED, None) == (status.status, status.dead_letter)


async def test_a_refused_task_is_no_dead_letter(client: Client) -> None:
    """It would be refused again."""
    async with failing(client, Reply(status=404)) as stage:
        status = await stage.ended(await stage.submit())
        with pytest.raises(DeadLetterNotFound):
            await stage.dead_letters.get(status.task_id)
    assert ("AgentRejected", None) == (status.error_type, status.dead_letter)


async def test_a_redriven_task_keeps_its_id_and_its_history(client: Client) -> None:
    """It completes under the same id, and says how it failed before."""
    async with failing(client) as stage:
        [task_id] = await stage.fail()
        before = await stage.tasks.status(task_id)
        stage.agent.script(Reply(body={"pages": 3}))
        resolved = await stage.dead_letters.redrive(task_id, ORDER)
        status = await stage.ended(task_id)
        await stage.listed()
        described = await client.get_workflow_handle(task_id).describe()
        closed = await result_of(client.get_workflow_handle(dead_letter_id(task_id)))
    assert Resolved(resolution=Resolution.REDRIVEN, reason="disk replaced", by="ops") == resolved
    assert "redriven" == closed["resolution"]
    assert (TaskState.COMPLETED, {"pages": 3}) == (status.status, status.result)
    assert before.created_at == status.created_at
    assert [("AgentFailed", 1)] == [
        (run.error_type, run.attempts) for run in status.earlier_runs or ()
    ]
    memo = await described.memo()
    assert ("print", f"exact pattern {stage.name}") == (memo["fingerprint"], memo["chosen_by"])
    assert [{"n": 1}, {"n": 1}] == [call.body for call in stage.agent.calls_of(task_id)]


async def test_a_redriven_task_is_found_and_queued_as_a_submitted_one(client: Client) -> None:
    """By its search attributes, with its priority and its tenant's turn."""
    async with failing(client) as stage:
        [task_id] = await stage.fail(tenant="acme", priority=5)
        stage.agent.script(Reply())
        await stage.dead_letters.redrive(task_id, ORDER)
        await stage.ended(task_id)
        handle = client.get_workflow_handle(task_id)
        found = (await handle.describe()).typed_search_attributes
        started = (await handle.fetch_history()).events[0]
    assert (stage.name, stage.name, 5, "acme") == (
        found.get(search_attributes.AGENT),
        found.get(search_attributes.PATTERN),
        found.get(search_attributes.PRIORITY),
        found.get(search_attributes.TENANT),
    )
    given = started.workflow_execution_started_event_attributes.priority
    assert Priority(priority_key=1, fairness_key="acme") == Priority(
        priority_key=given.priority_key, fairness_key=given.fairness_key
    )


async def test_a_task_that_fails_again_waits_again(client: Client) -> None:
    """As one dead letter, with both runs."""
    async with failing(client) as stage:
        [task_id] = await stage.fail()
        await stage.dead_letters.redrive(task_id, ORDER)
        again = await stage.ended(task_id)
        await stage.listed(task_id)

        async def twice() -> Any:
            detail = await stage.dead_letters.get(task_id)
            return detail if detail.runs == 2 else None

        detail = await eventually(twice)
        stage.agent.script(Reply())
        await stage.dead_letters.redrive(task_id, ORDER)
        status = await stage.ended(task_id)
    assert again.dead_letter
    assert (1, 1) == (len(detail.earlier_runs), len(detail.attempt_history))
    assert (TaskState.COMPLETED, 2) == (status.status, len(status.earlier_runs or ()))


async def test_a_discarded_task_stays_failed(client: Client) -> None:
    """And is not found among the dead letters any more."""
    async with failing(client) as stage:
        [task_id] = await stage.fail()
        resolved = await stage.dead_letters.discard(task_id, ORDER)
        with pytest.raises(DeadLetterNotFound):
            await stage.dead_letters.redrive(task_id, ORDER)
        with pytest.raises(DeadLetterNotFound):
            await stage.dead_letters.get(task_id)
        await stage.listed()
        status = await stage.tasks.status(task_id)
    assert (Resolution.DISCARDED, TaskState.FAILED) == (resolved.resolution, status.status)
    assert 1 == len(stage.agent.calls_of(task_id))


async def test_of_many_redrives_at_once_one_is_carried_out(client: Client) -> None:
    """The others find nothing."""
    async with failing(client) as stage:
        [task_id] = await stage.fail()
        stage.agent.script(Reply())
        ends = await asyncio.gather(
            *(stage.dead_letters.redrive(task_id, ORDER) for _ in range(5)),
            return_exceptions=True,
        )
        await stage.ended(task_id)
    kinds = sorted(type(end).__name__ for end in ends)
    assert ["DeadLetterNotFound"] * 4 + ["Resolved"] == kinds
    assert 2 == len(stage.agent.calls_of(task_id))


async def test_a_task_that_runs_already_is_not_redriven(client: Client) -> None:
    """Somebody started it by hand; the dead letter stays."""
    async with failing(client) as stage:
        [task_id] = await stage.fail()
        stage.agent.script(Reply(hang=True))
        handle = await client.start_workflow(
            WORKFLOW_TYPE,
            {"pattern": stage.name, "payload": {}},
            id=task_id,
            task_queue=WORKFLOW_QUEUE,
        )
        with pytest.raises(OrderRefused) as caught:
            await stage.dead_letters.redrive(task_id, ORDER)
        await handle.terminate()
        kept = await stage.dead_letters.get(task_id)
    assert "is running already" in str(caught.value)
    assert task_id == kept.task_id


async def test_a_task_without_a_route_stays(client: Client) -> None:
    """The rule is gone: the update says so, and nothing is lost."""
    async with failing(client):
        handle = await start(client, entry(task={"pattern": "gone", "payload": {}}))
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update("redrive")
        discarded = await handle.execute_update("discard", result_type=Resolved)
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.message.startswith("Unknown pattern 'gone'")
    assert Resolution.DISCARDED == discarded.resolution


async def test_a_signal_redrives_as_an_update_does(client: Client) -> None:
    """The engine's batch operations send it."""
    async with failing(client) as stage:
        [task_id] = await stage.fail()
        stage.agent.script(Reply())
        handle = client.get_workflow_handle(dead_letter_id(task_id))
        await handle.signal("redrive", {"reason": "batch"})
        closed = await result_of(handle)
        status = await stage.ended(task_id)
    assert ({"resolution": "redriven", "reason": "batch", "by": ""}, TaskState.COMPLETED) == (
        closed,
        status.status,
    )


async def test_a_signal_that_is_refused_says_so_in_the_web_ui(client: Client) -> None:
    """Nobody waits for its answer."""
    async with failing(client):
        handle = await start(client, entry(task={"pattern": "gone", "payload": {}}))
        before = await details(handle)
        await handle.signal("redrive")

        async def told() -> bool:
            return "**Not redriven**: Unknown pattern 'gone'" in await details(handle)

        await eventually(told)
        await handle.signal("discard")
        closed = await result_of(handle)
    assert "AgentFailed, all is lost" in before
    assert "Send the update `redrive`" in before
    assert "discarded" == closed["resolution"]


async def test_a_dead_letter_expires(skipping: Client) -> None:
    """After its time, by a durable timer."""
    async with failing(skipping):
        handle = await start(skipping, entry(expires=timedelta(days=30).total_seconds()))
        closed = await result_of(handle)
        described = await handle.describe()
    assert "expired" == closed["resolution"]
    assert described.close_time is not None
    assert timedelta(days=30) <= described.close_time - described.start_time < timedelta(days=31)


async def test_the_query_shows_everything(client: Client) -> None:
    """In the Web UI, as it was stored."""
    async with failing(client):
        handle = await start(client, entry())
        shown = await handle.query("entry")
        await handle.terminate()
    assert ({"file": "document.pdf"}, "all is lost") == (
        shown["task"]["payload"],
        shown["run"]["error"],
    )


async def test_a_dead_letter_started_with_nonsense_fails_at_once(client: Client) -> None:
    """It does not look open for ever."""
    async with failing(client):
        handle = await start(client, {"task": 5})
        with pytest.raises(WorkflowFailureError) as caught:
            await result_of(handle)
    assert isinstance(caught.value.cause, ApplicationError)
    assert "InvalidInput" == caught.value.cause.type


@pytest.mark.parametrize(
    "fields",
    [
        {"pattern": "😀" * 160},
        {"payload": {"text": "x" * 1_890_000}},
    ],
    ids=["long_pattern", "large_payload"],
)
async def test_an_odd_task_becomes_a_dead_letter_too(client: Client, fields: Any) -> None:
    """At the sizes that a submission may have, and it is redriven."""
    async with failing(client) as stage:
        [task_id] = await stage.fail(**fields)
        await stage.dead_letters.redrive(task_id, ORDER)
        status = await stage.ended(task_id)
    assert (TaskState.FAILED, True) == (status.status, status.dead_letter)


async def test_an_agent_that_says_much_leaves_a_dead_letter(client: Client) -> None:
    """With as much of it as fits."""
    async with failing(client, Reply(status=500, body="x" * 90_000)) as stage:
        [task_id] = await stage.fail()
        [item] = (await stage.dead_letters.page(stage.own, 1)).dead_letters
    assert len(item.error) <= 300
    assert task_id == item.task_id


async def test_a_second_dead_letter_waits_for_the_first_to_close(client: Client) -> None:
    """The forerunner holds the id a while longer; the failed one is kept all the same."""
    async with failing(client) as stage:
        task_id = str(uuid4())
        forerunner = await start(client, entry(), task_id=task_id)
        await client.start_workflow(
            WORKFLOW_TYPE,
            {"pattern": stage.name, "payload": {}},
            id=task_id,
            task_queue=WORKFLOW_QUEUE,
        )
        await stage.agent.called()

        async def waits() -> bool:
            history = await client.get_workflow_handle(task_id).fetch_history()
            return any(
                event.HasField("start_child_workflow_execution_failed_event_attributes")
                for event in history.events
            )

        await eventually(waits)
        await forerunner.terminate()
        status = await stage.ended(task_id)
        detail = await stage.dead_letters.get(task_id)
    assert status.dead_letter
    assert "disk full" in detail.error


async def test_a_cancellation_comes_too_late_for_a_task_that_has_failed(client: Client) -> None:
    """It failed before, and is kept."""
    async with failing(client, FAILS) as stage:
        task_id = str(uuid4())
        forerunner = await start(client, entry(), task_id=task_id)
        handle = await client.start_workflow(
            WORKFLOW_TYPE,
            {"pattern": stage.name, "payload": {}},
            id=task_id,
            task_queue=WORKFLOW_QUEUE,
        )
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.HasField("start_child_workflow_execution_failed_event_attributes"):
                break
        await handle.cancel()
        await forerunner.terminate()
        status = await stage.ended(task_id)
        kept = await stage.dead_letters.get(task_id)
    assert (TaskState.FAILED, True) == (status.status, status.dead_letter)
    assert task_id == kept.task_id
