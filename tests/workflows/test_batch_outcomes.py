"""How the items of a batch end, on the real engine, with real agents."""

from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from orchestrator.batches import BATCH_WORKFLOW, BatchTally, batch_id_of, item_id
from orchestrator.dead_letters import dead_letter_id
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE
from tests.support.agents import Agent, Call, Reply
from tests.workflows.batch_parent import Term
from tests.workflows.batch_stage import (
    batching,
    calls_by_item,
    echo,
    failure_of,
    numbered,
    recorded,
    replayed,
    start,
    tally_of,
    told,
    told_tally,
)

LARGE = 1_000_000


def four_kinds(call: Call) -> Reply:
    """Completed, refused, completed at the second attempt, never."""
    again = call.headers["X-Attempt"] != "1"
    return (
        Reply(body={"n": call.body["n"]}),
        Reply(status=404),
        Reply() if again else Reply(status=503),
        Reply(status=500),
    )[call.body["n"] % 4]


async def test_each_item_ends_once_in_its_own_way(client: Client) -> None:
    """Those that are tried again are tasks of their own, of which no attempt is lost."""
    recovery = {"max_retries": 1, "dead_letter_queue": True}
    async with batching(client, Agent(decide=four_kinds), error_recovery=recovery) as stage:
        handle = await start(stage, numbered(stage, 40))
        tally = await tally_of(handle)
        found = await told(handle)
        second = await stage.tasks.status(item_id(handle.id, 2))
        never = await stage.tasks.status(item_id(handle.id, 3))
        await replayed(handle)
    expected = BatchTally(total=40, completed=20, failed=20)
    assert [expected, expected] == [tally, await told_tally(handle)]
    assert list(range(0, 40, 4)) == found.positions(TaskState.COMPLETED)
    assert list(range(1, 40, 4)) == found.positions(TaskState.FAILED)
    assert {item_id(handle.id, n) for n in range(40) if n % 4 > 1} == set(found.alone)
    assert [1, 1, 2, 2] * 10 == calls_by_item(stage.agents[0], handle.id, 40)
    assert (TaskState.COMPLETED, 2, handle.id) == (second.status, second.attempts, second.batch_id)
    assert ["AgentFailed", "success"] == [each.outcome for each in second.attempt_history or ()]
    assert (TaskState.FAILED, 2, True) == (never.status, never.attempts, never.dead_letter)


async def test_an_item_that_fails_at_its_last_attempt_is_a_dead_letter(client: Client) -> None:
    """It can be run again under its id, as any task."""
    recovery = {"max_retries": 0, "dead_letter_queue": True}
    async with batching(client, Agent(Reply(status=500)), error_recovery=recovery) as stage:
        handle = await start(stage, numbered(stage, 3, tenant="acme"))
        tally, found = await tally_of(handle), await told(handle)
        before = await stage.tasks.status(item_id(handle.id, 1))
        stage.agents[0].script(Reply(body={"text": "mended"}))
        letter = client.get_workflow_handle(dead_letter_id(item_id(handle.id, 1)))
        await letter.execute_update("redrive")
        after = await stage.ended(item_id(handle.id, 1))
        await replayed(handle)
    assert BatchTally(total=3, failed=3) == tally
    assert ([0, 1, 2], []) == (sorted(found.dead), found.alone)
    assert (TaskState.FAILED, "AgentFailed", True) == (
        before.status,
        before.error_type,
        before.dead_letter,
    )
    assert (TaskState.COMPLETED, {"text": "mended"}, handle.id, "acme") == (
        after.status,
        after.result,
        after.batch_id,
        after.tenant,
    )
    assert [("AgentFailed", 1)] == [
        (run.error_type, run.attempts) for run in after.earlier_runs or ()
    ]


async def test_a_batch_that_was_started_by_hand_has_any_id(client: Client) -> None:
    """Its items are named after it."""
    name = f"nightly-{uuid4()}"
    async with batching(client, Agent(decide=echo)) as stage:
        handle = await start(stage, numbered(stage, 2), name)
        tally = await tally_of(handle)
        status = await stage.tasks.status(f"{name}.1")
    assert BatchTally(total=2, completed=2) == tally
    assert (TaskState.COMPLETED, {"n": 1}) == (status.status, status.result)
    assert [1, 1] == calls_by_item(stage.agents[0], name, 2)


BAD: dict[str, tuple[dict[str, Any] | None, str]] = {
    "nothing": (None, 'pass {"tasks": [{"pattern": ..., "payload": {...}}]}'),
    "no tasks": ({"tasks": []}, "No tasks were given"),
    "an unknown pattern": (
        {"tasks": [{"pattern": "here", "payload": {}}, {"pattern": "gone", "payload": {}}]},
        "tasks.1: ",
    ),
    "no payload": ({"tasks": [{"pattern": "here"}]}, "payload"),
    "too much": (
        {"tasks": [{"pattern": "here", "payload": {"text": "x" * 450_000}}] * 4},
        "POST /orchestrate/batch",
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_cannot_be_carried_out_says_why(client: Client, what: str) -> None:
    """At once, and nothing is called."""
    given, why = BAD[what]
    async with batching(client) as stage:
        names = {"here": stage.names[0], "gone": "gone"}
        tasks = [
            {**task, "pattern": names[task["pattern"]]} for task in (given or {}).get("tasks", ())
        ]
        handle: Any = await client.start_workflow(
            BATCH_WORKFLOW,
            args=[] if given is None else [{"tasks": tasks}],
            id=str(uuid4()),
            task_queue=WORKFLOW_QUEUE,
        )
        error = await failure_of(handle)
        assert [] == stage.agents[0].calls
    assert isinstance(error, ApplicationError)
    assert "InvalidInput" == error.type
    assert why in error.message


async def test_another_workflow_runs_a_batch_as_its_child(client: Client) -> None:
    """By plain names, with plain data."""
    async with (
        batching(client) as stage,
        Worker(
            client,
            task_queue=f"lessons-{uuid4()}",
            workflows=[Term],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ) as lessons,
    ):
        result = await client.execute_workflow(
            Term.run,
            {"tasks": numbered(stage, 3)},
            id=f"term-{uuid4()}",
            task_queue=lessons.task_queue,
        )
    assert {"total": 3, "completed": 3, "failed": 0, "cancelled": 0} == result


async def test_a_batch_tells_how_far_it_has_come(client: Client) -> None:
    """By query, and in words for the Web UI."""
    agent = Agent(
        decide=lambda call: Reply(hang=call.body["n"] == 2, status=[200, 404][call.body["n"] % 2])
    )
    async with batching(client, agent) as stage:
        tasks = [*numbered(stage, 2), {**numbered(stage, 3)[2], "priority": 5}]
        handle = await start(stage, tasks)
        await recorded(handle, "activity_task_completed_event_attributes")
        tally = BatchTally.model_validate(await handle.query("status"))
        details = (await handle.query("__temporal_workflow_metadata")).current_details
        agent.release()
        after = await tally_of(handle)
        last = (await handle.query("__temporal_workflow_metadata")).current_details
    assert BatchTally(total=3, completed=1, failed=1) == tally
    assert "**2 of 3** have ended: 1 completed, 1 failed, 0 cancelled" == details
    assert BatchTally(total=3, completed=2, failed=1) == after
    assert "**3 of 3** have ended: 2 completed, 1 failed, 0 cancelled" == last


async def test_results_that_fill_many_reports_all_arrive(client: Client) -> None:
    """Each item is called once, few at a time, whatever has room in one report."""
    agent = Agent(decide=lambda call: Reply(body={"n": call.body["n"], "text": "x" * LARGE}))
    async with batching(client, agent) as stage:
        stage.transport.max_result_bytes = 2 * LARGE
        handle = await start(stage, numbered(stage, 30))
        tally, found = await tally_of(handle), await told(handle)
        last = await stage.tasks.status(item_id(handle.id, 29))
    assert BatchTally(total=30, completed=30) == tally
    assert list(range(30)) == found.positions(TaskState.COMPLETED)
    assert {1} == set(calls_by_item(agent, handle.id, 30))
    assert agent.most_at_once <= 3
    assert (29, LARGE) == (last.result["n"], len(last.result["text"]))


async def test_results_that_suddenly_grow_all_arrive(client: Client) -> None:
    """More is answered than a chunk may write: each item has one outcome all the same."""

    def growing(call: Call) -> Reply:
        return Reply(body={"text": "x" * (LARGE if call.body["n"] > 9 else 1)})

    async with batching(client, Agent(decide=growing)) as stage:
        stage.transport.max_result_bytes = 2 * LARGE
        handle = await start(stage, numbered(stage, 25))
        tally, found = await tally_of(handle), await told(handle)
    assert BatchTally(total=25, completed=25) == tally
    assert list(range(25)) == found.positions(TaskState.COMPLETED)


async def test_a_result_that_grows_when_it_is_written_fails_by_itself(client: Client) -> None:
    """The engine cannot take it; the other items are not harmed."""
    numbers = b"[" + b"1e9," * 200_000 + b"0]"
    agent = Agent(decide=lambda call: Reply(body=numbers) if call.body["n"] == 1 else echo(call))
    async with batching(client, agent) as stage:
        stage.transport.max_result_bytes = 2 * LARGE
        handle = await start(stage, numbered(stage, 3))
        tally = await tally_of(handle)
        status = await stage.tasks.status(item_id(handle.id, 1))
    assert BatchTally(total=3, completed=2, failed=1) == tally
    assert "ReplyTooLarge" == status.error_type
    assert [1, 1, 1] == calls_by_item(agent, handle.id, 3)


async def test_answers_that_nest_as_deep_as_they_may_arrive(client: Client) -> None:
    """What is too deep to be handed on fails by itself; the others are not harmed."""

    def deep(call: Call) -> Reply:
        depth = (150, 185, 199, 400)[call.body["n"]]
        return Reply(body=b"[" * depth + b"]" * depth)

    async with batching(client, Agent(decide=deep)) as stage:
        handle = await start(stage, numbered(stage, 4))
        tally = await tally_of(handle)
        seen = [await stage.tasks.status(item_id(handle.id, n)) for n in range(4)]
    assert BatchTally(total=4, completed=2, failed=2) == tally
    assert ["ReplyUnreadable"] * 2 == [each.error_type for each in seen[2:]]
    assert [1] * 4 == calls_by_item(stage.agents[0], handle.id, 4)


async def test_chunks_go_by_the_priority_and_the_tenant_of_their_items(client: Client) -> None:
    """A chunk counts among its tenant's calls as many as it holds."""
    weights = {"tenant_weights": {"big": 4.0}}
    async with batching(client, priority_queue=weights) as stage:
        tasks = [
            *numbered(stage, 2, priority=5, tenant="big"),
            *numbered(stage, 4, priority=2, tenant="small"),
        ]
        handle = await start(stage, tasks)
        tally, found = await tally_of(handle), await told(handle)
    assert 6 == tally.completed
    assert {(1, "big", 2.0), (4, "small", 0.25)} == {
        (each.priority_key, each.fairness_key, each.fairness_weight) for each in found.chunks
    }


async def test_a_deadline_that_was_asked_for_counts_from_the_start_of_the_batch(
    client: Client,
) -> None:
    """The attempt is cut off at it, and there is no other."""
    # It is cut off a little early: what is left then must not be enough for the pause.
    slow = {"retry_delay": 5}
    async with batching(client, Agent(Reply(hang=True)), error_recovery=slow) as stage:
        handle = await start(stage, numbered(stage, 2, timeout=0.6))
        tally = await tally_of(handle)
        status = await stage.tasks.status(item_id(handle.id, 0))
    assert BatchTally(total=2, failed=2) == tally
    assert "DeadlineExceeded" == status.error_type
    assert [1, 1] == calls_by_item(stage.agents[0], handle.id, 2)


async def test_the_history_of_an_item_is_small_and_the_same_in_any_batch(client: Client) -> None:
    """A tenth of an event, and some hundred bytes."""
    async with batching(client, Agent(decide=echo)) as stage:
        sizes = []
        for count in (200, 1000):
            handle = await start(stage, numbered(stage, count), batch_id_of(uuid4()))
            assert count == (await tally_of(handle)).completed
            described = (await handle.describe()).raw_description.workflow_execution_info
            sizes.append((described.history_length / count, described.history_size_bytes / count))
    (_, bytes_of_few), (events, bytes_of_many) = sizes
    assert events < 0.1
    assert bytes_of_many < 1.25 * bytes_of_few
    assert bytes_of_many < 1000
