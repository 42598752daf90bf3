"""Batches by the engine: handed in, followed, read, cancelled, their failed items run again."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from activities.follow_parts import PartsFollower
from activities.resolve_plan import PlanResolver
from orchestrator.batches import (
    Batch,
    BatchStatus,
    batch_id_of,
    item_id,
    part_id,
)
from orchestrator.batching import Intake
from orchestrator.dead_letters import DeadLetterOrder
from orchestrator.engine.batch_starts import SubmittedBatch
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.priorities import Priorities
from orchestrator.errors import (
    BatchNotFound,
    EngineUnavailable,
    IdempotencyConflict,
    OrderRefused,
    TaskNotFound,
)
from orchestrator.models import BlockedBy, TaskState
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import eventually
from tests.workflows.agents_stage import GRACE, RPC_SECONDS, Stage, idle
from workflows.hosting import workflow_worker

WAIT_SECONDS = 40.0
ACCEPTED = datetime.now(UTC)
LASTING = {"max_retries": 0, "dead_letter_queue": True}


def as_asked(call: Call) -> Reply:
    """What the payload asks for; else its own content comes back."""
    if call.body.get("do") == "fail":
        return Reply(status=500, body={"detail": "disk full"})
    return Reply(body=call.body, hang=call.body.get("do") == "hang")


def workflows(stage: Stage) -> Worker:
    """A worker for the workflows and what follows the parts of batches."""
    follower = PartsFollower(stage.client, RPC_SECONDS)
    return workflow_worker(
        stage.client,
        stage.calls,
        PlanResolver(stage.routes),
        GRACE,
        long_activities=[follower.follow_parts],
    )


@asynccontextmanager
async def serving(client: Client, agent: Agent, **settings: Any) -> AsyncIterator[Stage]:
    """Everything that runs."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(idle(client, agent, **settings))
        await stack.enter_async_context(workflows(stage))
        await stack.enter_async_context(stage.worker())
        yield stage


def batch_of(stage: Stage, batch_id: str, *payloads: dict[str, Any]) -> Batch:
    """What a batch of one part starts with."""
    intake = Intake(stage.routes, 1_000_000)
    for payload in payloads:
        intake.offer({"pattern": stage.names[0], "payload": payload})
    [batch] = intake.parts(batch_id, intake.plans, stage.settings.rate_limit, ACCEPTED)
    return batch


def parts_of(stage: Stage, batch_id: str, *sizes: int, start: int = 0) -> list[Batch]:
    """What a batch of several parts starts with; its items are numbered from ``start``."""
    starts = tuple(sum(sizes[:part]) for part in range(len(sizes)))
    return [
        batch_of(
            stage, batch_id, *({"n": start + first + n} for n in range(sizes[part]))
        ).model_copy(update={"part": part, "first": first, "starts": starts})
        for part, first in enumerate(starts)
    ]


async def submit(
    stage: Stage, *payloads: dict[str, Any], batch_id: str = "", fingerprint: str | None = None
) -> SubmittedBatch:
    """Hand a batch in, as the API does."""
    batch_id = batch_id or batch_id_of(uuid4())
    parts = [batch_of(stage, batch_id, *payloads)]
    return await stage.tasks.batches.starts.submit(batch_id, parts, fingerprint)


async def ended(stage: Stage, batch_id: str) -> BatchStatus:
    """The status of a batch once it has ended."""
    status = await stage.tasks.batches.status(batch_id, WAIT_SECONDS)
    assert status.status.is_final, status
    return status


async def test_a_batch_is_followed_to_its_end(client: Client) -> None:
    """Its results are read in the order in which it was handed in."""
    async with serving(client, Agent(decide=as_asked)) as stage:
        submitted = await submit(stage, *({"n": n} for n in range(5)))
        batch_id = submitted.status.batch_id
        status = await ended(stage, batch_id)
        page, cursor = await stage.tasks.batches.page(batch_id, 100)
        item = await stage.tasks.status(item_id(batch_id, 3), WAIT_SECONDS)
    assert (True, "queued", 5, 5, ACCEPTED) == (
        submitted.created,
        submitted.status.status,
        submitted.status.total,
        submitted.status.pending,
        submitted.status.created_at,
    )
    assert ("completed", 5, 5, 0, ACCEPTED) == (
        status.status,
        status.total,
        status.completed,
        status.pending,
        status.created_at,
    )
    assert ([{"n": n} for n in range(5)], None) == ([each.result for each in page], cursor)
    assert ({"n": 3}, 1, batch_id) == (item.result, item.attempts, item.batch_id)


async def test_an_item_that_is_tried_again_is_a_task_of_its_own(client: Client) -> None:
    """With all its attempts, and the batch that it belongs to."""
    async with serving(client, Agent(Reply(status=503), Reply(body={"text": "done"}))) as stage:
        batch_id = (await submit(stage, {"n": 0})).status.batch_id
        item = await stage.tasks.status(item_id(batch_id, 0), WAIT_SECONDS)
        status = await ended(stage, batch_id)
        assert [item] == (await stage.tasks.batches.page(batch_id, 10))[0]
    assert (1, 0) == (status.completed, status.pending)
    assert ("completed", {"text": "done"}, 2, batch_id, ACCEPTED) == (
        item.status,
        item.result,
        item.attempts,
        item.batch_id,
        item.created_at,
    )


async def test_what_is_redriven_counts_as_it_is_now(client: Client) -> None:
    """In its batch, in the pages of its results, and where items are joined."""
    agent = Agent(decide=as_asked)
    async with serving(client, agent, error_recovery=LASTING) as stage:
        batches, dead_letters = stage.tasks.batches, DeadLetters(client, RPC_SECONDS)
        submitted = await submit(stage, {"do": "fail"}, {"n": 1}, {"do": "fail"})
        batch_id = submitted.status.batch_id
        before = await ended(stage, batch_id)
        failed = await stage.tasks.status(item_id(batch_id, 0))
        assert (1, 2, "failed", True) == (
            before.completed,
            before.failed,
            failed.status,
            failed.dead_letter,
        )
        agent.script(Reply(body={"text": "mended"}))
        await dead_letters.redrive(item_id(batch_id, 0), DeadLetterOrder())
        item = await stage.tasks.status(item_id(batch_id, 0), WAIT_SECONDS)
        assert ("completed", {"text": "mended"}) == (item.status, item.result)
        outcomes = await batches.outcomes(batch_id, range(3))
        assert ["completed", "completed", "failed"] == [
            outcomes[position].status.value for position in range(3)
        ]

        async def counted() -> bool:
            now = await batches.status(batch_id)
            return ("completed", 2, 1, 0) == (now.status, now.completed, now.failed, now.pending)

        await eventually(counted)
        [first, *_], _ = await batches.page(batch_id, 10)
        assert item == first


async def test_a_batch_runs_again_while_its_redriven_items_do(client: Client) -> None:
    """Whoever waits for it waits for them too."""
    agent = Agent(decide=as_asked)
    async with serving(client, agent, error_recovery=LASTING) as stage:
        batch_id = (await submit(stage, {"do": "fail"}, {"n": 1})).status.batch_id
        await ended(stage, batch_id)
        agent.script(Reply(hang=True))
        await DeadLetters(client, RPC_SECONDS).redrive(item_id(batch_id, 0), DeadLetterOrder())

        async def running() -> bool:
            now = await stage.tasks.batches.status(batch_id)
            return ("running", 1, 0, 1) == (now.status, now.completed, now.failed, now.pending)

        await eventually(running)
        agent.release()
        status = await ended(stage, batch_id)
    assert ("completed", 2, 0, 0) == (
        status.status,
        status.completed,
        status.failed,
        status.pending,
    )


async def test_a_batch_that_is_handed_in_again_is_the_same(client: Client) -> None:
    """Unless the request is another."""
    async with serving(client, Agent()) as stage:
        first = await submit(stage, {"n": 0}, fingerprint="print")
        batch_id = first.status.batch_id
        await ended(stage, batch_id)
        again = await submit(stage, {"n": 0}, batch_id=batch_id, fingerprint="print")
        with pytest.raises(IdempotencyConflict, match=f"batch {batch_id}"):
            await submit(stage, {"n": 1}, batch_id=batch_id, fingerprint="another")
        with pytest.raises(BatchNotFound):
            await stage.tasks.batches.starts.existing(batch_id_of(uuid4()), "print")
    assert (first.status, False) == (again.status, again.created)
    assert 1 == len(stage.agents[0].calls)


async def test_a_batch_that_is_cancelled_cuts_off_its_calls(client: Client) -> None:
    """Its items are cancelled, but for those that had ended."""
    agent = Agent(decide=as_asked)
    async with serving(client, agent) as stage:
        batch_id = (await submit(stage, {"n": 0}, {"do": "hang"})).status.batch_id
        await agent.called(2)
        await stage.tasks.batches.cancel(batch_id)
        status = await ended(stage, batch_id)
        hanging = next(call for call in agent.calls if call.body.get("do") == "hang")
        await hanging.abandonment()
        item = await stage.tasks.status(item_id(batch_id, 1))
        again = await stage.tasks.batches.cancel(batch_id)
    assert ("cancelled", 1, 1, 0) == (
        status.status,
        status.completed,
        status.cancelled,
        status.pending,
    )
    assert (TaskState.CANCELLED, status) == (item.status, again)


async def test_an_item_that_waits_says_for_what(client: Client) -> None:
    """It keeps the priority of its batch."""
    async with idle(client, Agent()) as stage, workflows(stage):
        batch_id = (await submit(stage, {"n": 0})).status.batch_id
        task_id = item_id(batch_id, 0)

        async def blocked() -> bool:
            return (await stage.tasks.status(task_id)).blocked_by is BlockedBy.NO_WORKER

        await eventually(blocked)
        with pytest.raises(OrderRefused, match="keeps the priority of its batch") as refused:
            await Priorities(client, stage.tasks, RPC_SECONDS).change(task_id, 5)
        assert "conflict" == refused.value.kind
        with pytest.raises(TaskNotFound):
            await Priorities(client, stage.tasks, RPC_SECONDS).change(item_id(batch_id, 1), 5)
        await stage.tasks.batches.cancel(batch_id)
        await ended(stage, batch_id)


async def test_parts_of_another_request_are_not_taken_for_its_own(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was cut off before the batch began may go on, by the same key and the same items."""
    async with serving(client, Agent(decide=as_asked)) as stage:
        batches, batch_id = stage.tasks.batches, batch_id_of(uuid4())
        start = client.start_workflow

        async def cut_off(*arguments: Any, **chosen: Any) -> Any:
            if chosen["id"] == batch_id:
                raise EngineUnavailable("The engine is unreachable")
            return await start(*arguments, **chosen)

        with monkeypatch.context() as patched:
            patched.setattr(client, "start_workflow", cut_off)
            with pytest.raises(EngineUnavailable):
                await batches.starts.submit(batch_id, parts_of(stage, batch_id, 1, 1, 1), "print")
        with pytest.raises(IdempotencyConflict, match=f"batch {batch_id}"):
            await batches.starts.submit(
                batch_id, parts_of(stage, batch_id, 1, 1, start=7), "another"
            )
        with pytest.raises(BatchNotFound):
            await batches.starts.existing(batch_id, "another")
        again = await batches.starts.submit(batch_id, parts_of(stage, batch_id, 1, 1, 1), "print")
        await ended(stage, batch_id)
        page, _ = await batches.page(batch_id, 100)
    assert (True, 3) == (again.created, again.status.total)
    assert [{"n": n} for n in range(3)] == [each.result for each in page]


async def test_a_batch_of_parts_is_one_batch(client: Client) -> None:
    """Counted, read and listed as one."""
    async with serving(client, Agent(decide=as_asked)) as stage:
        batches, batch_id = stage.tasks.batches, batch_id_of(uuid4())
        parts = parts_of(stage, batch_id, 2, 1, 3)
        first = await batches.starts.submit(batch_id, parts, "print")
        status = await ended(stage, batch_id)
        page, _ = await batches.page(batch_id, 100)
        again = await batches.starts.submit(batch_id, parts, "print")
        assert (6, 6, [{"n": n} for n in range(6)]) == (
            status.total,
            status.completed,
            [each.result for each in page],
        )
        assert (first.status, False) == (again.status, again.created)

        async def listed() -> bool:
            found = {each.batch_id: each for each in (await batches.lists.page(100)).batches}
            assert part_id(batch_id, 1) not in found
            return batch_id in found and found[batch_id].completed == 6

        await eventually(listed)
