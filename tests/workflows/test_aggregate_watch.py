"""How an aggregate finds out what has ended: items in their batch, many tasks by lists."""

import asyncio
from uuid import uuid4

import pytest
from temporalio.client import Client

from activities import join_tasks
from orchestrator.aggregate_status import AggregateState
from orchestrator.aggregates import Aggregation, fan_out_of, joined_ids, redrive_of
from orchestrator.engine import endings
from orchestrator.engine.endings import Endings
from orchestrator.errors import EngineUnavailable
from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus
from tests.support.agents import Reply
from tests.support.stack import eventually
from tests.workflows.aggregate_stage import RPC_SECONDS, numbers, reached, result_of, serving

COMPLETED = AggregateState.COMPLETED


async def test_items_of_a_batch_are_joined_by_their_ids(client: Client) -> None:
    """Those of its own and of another's; some that never were are not known."""
    async with serving(client) as stage:
        requests = [stage.request(n=n) for n in range(40)]
        requests[3] = stage.request(do="fail")
        requests[7] = stage.request(do="hang")
        asked = {"tasks": requests, "join": {"at_least": 38}}
        first = await stage.start_with(asked)
        own = await result_of(first)
        info = (await first.describe()).raw_description.workflow_execution_info
        given = Aggregation.model_validate(asked)
        ids = joined_ids(given, fan_out_of(given, first.id, info.first_run_id))
        beyond = f"{ids[0][:-4]}{1000:04x}"
        elsewhere = str(uuid4())
        nobodys = f"{elsewhere[:14]}8{elsewhere[15:19]}8{elsewhere[20:-4]}0001"
        second = await stage.start(task_ids=[beyond, *reversed(ids), nobodys])
        await reached(second, completed=38, failed=3)
        stage.agent.release()
        joined = await result_of(second)
    assert (COMPLETED, 38, 1, 0, 1) == numbers(own)
    assert (COMPLETED, 39, 3, 0, 0) == numbers(joined)
    assert [beyond, ids[3], nobodys] == [each.task_id for each in joined.errors]
    assert list(range(39, 7, -1)) == [each.result["n"] for each in joined.results[:32]]


async def test_many_tasks_are_found_by_lists(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When they are too many for each to be waited for."""
    monkeypatch.setattr(endings, "FEW", 1)
    monkeypatch.setattr(endings, "LISTED_AT_ONCE", 3)
    async with serving(client) as stage:
        ids = [await stage.submit(do="hang" if n % 2 else "echo", n=n) for n in range(8)]
        await stage.agent.called(8)
        handle = await stage.start(task_ids=[*ids, "nobody's"])
        await reached(handle, completed=4, failed=1)
        stage.agent.release()
        joined = await result_of(handle)
    assert (COMPLETED, 8, 1, 0, 0) == numbers(joined)
    assert list(range(8)) == [each.result["n"] for each in joined.results]


async def test_no_more_is_waited_for_one_by_one_than_the_engine_allows(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is found all the same."""
    monkeypatch.setattr(endings, "MAX_POLLS", 0)
    async with serving(client) as stage:
        handle = await stage.start(task_ids=[await stage.submit(do="hang") for _ in range(2)])
        await stage.agent.called(2)
        stage.agent.release()
        joined = await result_of(handle)
    assert (COMPLETED, 2, 0, 0, 0) == numbers(joined)


async def test_the_failed_of_many_are_found_by_lists_to_be_redriven(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that have a dead letter, each is run again."""
    monkeypatch.setattr(join_tasks, "CERTAINLY_ASKED", 0)
    async with serving(client) as stage:
        ids = [await stage.submit(do="fail"), await stage.submit(n=1)]
        handle = await stage.start(f"joint-{uuid4()}", task_ids=ids)
        first = await result_of(handle)

        async def listed() -> bool:
            return bool(await seen.running("DeadLetter", [f"dead-letter/{ids[0]}"]))

        seen = Endings(client, stage.tasks, RPC_SECONDS)
        await eventually(listed)
        stage.agent.behave(lambda _: Reply())
        again = redrive_of(Aggregation(task_ids=tuple(ids)), None)
        second = await result_of(await stage.start_with(again, handle.id))
    assert (COMPLETED, 1, 1, 0, 0) == numbers(first)
    assert (COMPLETED, 2, 0, 0, 0) == numbers(second)


async def test_a_little_news_is_told_after_a_while(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of twenty is no tenth, but no secret either."""
    monkeypatch.setattr(join_tasks, "REPORT_SECONDS", 0.2)
    async with serving(client) as stage:
        ids = [await stage.submit(do="hang") for _ in range(20)]
        handle = await stage.start(task_ids=[*ids, await stage.submit(n=1)])
        status = await reached(handle, completed=1)
        stage.agent.release()
        joined = await result_of(handle)
    assert (AggregateState.RUNNING, 20) == (status.status, status.pending)
    assert (COMPLETED, 21, 0, 0, 0) == numbers(joined)


async def test_a_result_that_is_too_large_for_a_report_is_left_out(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task still counts as completed, and the list says that its result is elsewhere."""
    monkeypatch.setattr(join_tasks, "LARGEST_BYTES", 1000)
    async with serving(client) as stage:
        ids = [await stage.submit(do="large", of="x", length=5000), await stage.submit(n=1)]
        joined = await stage.join(task_ids=ids, merge="by_agent")
    assert [(True, None), (False, {"n": 1})] == [
        (each.left_out, each.result) for each in joined.results
    ]
    assert {stage.name: [{"n": 1}]} == joined.merged


async def test_an_engine_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its absence says nothing of any task."""
    monkeypatch.setattr(endings, "ENGINE_PAUSE_SECONDS", 0.01)
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise EngineUnavailable("The engine did not answer in time")
        return asked

    assert 3 == await endings.patiently(ask)


async def test_each_is_told_of_once(client: Client) -> None:
    """Looking tells of what has ended, following of the rest."""
    async with serving(client) as stage:
        good, slow = await stage.submit(n=1), await stage.submit(do="hang")
        await stage.ended(good)
        seen = Endings(client, stage.tasks, RPC_SECONDS)
        looked = [each async for each in seen.look([good, slow, "nobody's"])]
        following = asyncio.ensure_future(anext(seen.follow([slow])))
        stage.agent.release()
        async with asyncio.timeout(60):
            task_id, status = await following
    assert [(good, TaskState.COMPLETED), ("nobody's", None)] == [
        (each, found.status if found else None) for each, found in looked
    ]
    assert isinstance(status, TaskStatus)
    assert (slow, TaskState.COMPLETED) == (task_id, status.status)
