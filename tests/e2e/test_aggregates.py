"""Many tasks joined into one answer, over HTTP and by the real command line."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from orchestrator.batches import item_id
from tests.e2e.aggregate_stage import (
    AT_ONCE,
    WAIT,
    called,
    calls,
    config,
    counts,
    ended,
    followed,
    joined,
    obeying,
    submit,
    work,
)
from tests.support.agents import Agent, Reply
from tests.support.stack import Stack, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gated() -> AsyncIterator[Agent]:
    """An agent that answers nothing until it is released, once."""
    async with Agent(Reply(hang=True, body=["released"])) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    agent: Agent, gated: Agent, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The shared product of this module."""
    async with running(tmp_path_factory.mktemp("stack"), config(agent, gated)) as started:
        yield started


@pytest.fixture(autouse=True)
def _obedient(agent: Agent) -> None:
    agent.behave(obeying())


async def test_ended_tasks_are_joined_at_once(api: httpx.AsyncClient) -> None:
    """The documented answer: two results, one error, in the order that was asked for."""
    ids = await submit(api, work(value={"n": 1}), work("refuse"), work(value={"n": 2}))
    await ended(api, ids)

    answer = await api.post("/aggregate", json={"task_ids": ids})

    found = answer.json()
    assert 200 == answer.status_code
    assert f"/aggregate/{found['aggregate_id']}" == answer.headers["location"]
    assert {"total_tasks": 3, "completed": 2, "failed": 1} == counts(found)
    assert "completed" == found["status"]
    assert [(ids[0], "test_agent", {"n": 1}), (ids[2], "test_agent", {"n": 2})] == [
        (each["task_id"], each["agent"], each["result"]) for each in found["results"]
    ]
    assert {"task_id", "agent", "result", "execution_time"} == set(found["results"][0])
    assert 0 < found["results"][0]["execution_time"] < 10
    [error] = found["errors"]
    assert (ids[1], "test_agent") == (error["task_id"], error["agent"])
    assert "404" in error["error"]
    assert found == (await api.get(f"/aggregate/{found['aggregate_id']}")).json()


async def test_tasks_that_have_not_ended_are_waited_for(
    api: httpx.AsyncClient, gated: Agent
) -> None:
    """First what there is, with 202; then the whole. What is named twice is joined once."""
    body = {"pattern": "gated", "payload": {}}
    running_, queued, ended_ = await submit(api, body, body, work(value=1))
    await ended(api, [ended_])
    await gated.called()
    ids = [running_, ended_, queued, running_]

    at_once = await api.post("/aggregate", json={"task_ids": ids}, headers=AT_ONCE)
    answer = await api.get(at_once.headers["location"], headers={"Prefer": "wait=1"})
    gated.release()
    later = await followed(api, at_once.json()["aggregate_id"])

    assert (202, "running") == (at_once.status_code, at_once.json()["status"])
    assert "wait=0" == at_once.headers["preference-applied"]
    assert 3 == at_once.json()["total_tasks"]
    assert (200, "running") == (answer.status_code, answer.json()["status"])
    assert "wait=1" == answer.headers["preference-applied"]
    assert answer.json()["pending"] >= 2
    assert "completed" == later["status"]
    assert {"total_tasks": 3, "completed": 3} == counts(later)
    assert [["released"], 1, ["released"]] == [each["result"] for each in later["results"]]


async def test_unknown_ids_are_errors_in_the_answer(api: httpx.AsyncClient) -> None:
    """They fail nothing else."""
    [known] = await submit(api, work(value=1))
    never = str(uuid.uuid4())

    found = await joined(api, task_ids=["never-heard-of-it", known, never])

    assert {"total_tasks": 3, "completed": 1, "failed": 2} == counts(found)
    assert [
        ("never-heard-of-it", "Task 'never-heard-of-it' is not known"),
        (never, f"Task '{never}' is not known"),
    ] == [(each["task_id"], each["error"]) for each in found["errors"]]
    assert [known] == [each["task_id"] for each in found["results"]]


@pytest.mark.parametrize(
    ("join", "status"),
    [
        ("all", "completed"),
        ("any", "completed"),
        ({"at_least": 2}, "completed"),
        ({"at_least": 3}, "failed"),
        ({"max_failed_percent": 34}, "completed"),
        ({"max_failed_percent": 33}, "failed"),
    ],
)
async def test_a_fan_out_ends_by_its_condition(
    api: httpx.AsyncClient, join: Any, status: str
) -> None:
    """Of three tasks that the aggregate starts, two complete; a failed one says why."""
    tasks = [work(value=1), work("refuse"), work(value=2)]

    found = await joined(api, tasks=tasks, join=join)

    assert (3, status) == (found["total_tasks"], found["status"])
    assert (found["reason"] is not None) == (status == "failed")
    assert {each["result"] for each in found["results"]} <= {1, 2}
    if join == "all":
        assert {"total_tasks": 3, "completed": 2, "failed": 1} == counts(found)


async def test_ids_and_tasks_stand_together(api: httpx.AsyncClient) -> None:
    """The ids first; each task of the fan-out has an id that GET /status answers for."""
    [single] = await submit(api, work(value=[1]))

    found = await joined(api, task_ids=[single], tasks=[work(value=[2]), work(value=[3])])

    ids = [each["task_id"] for each in found["results"]]
    statuses = [(await api.get(f"/status/{task_id}")).json() for task_id in ids]
    assert single == ids[0]
    assert [[1], [2], [3]] == [each["result"] for each in found["results"]]
    assert [[1], [2], [3]] == [status["result"] for status in statuses]


async def test_the_first_answer_cancels_the_rest(api: httpx.AsyncClient, agent: Agent) -> None:
    """The others end cancelled, and their calls are cut off."""
    mark = str(uuid.uuid4())
    tasks = [work("hang", mark=mark), work(value=["first"]), work("hang", mark=mark)]

    found = await joined(api, tasks=tasks, join="any", on_met="cancel_rest", merge="first")
    for call in called(agent, mark):
        await call.abandonment()

    assert "completed" == found["status"]
    assert {"total_tasks": 3, "completed": 1, "cancelled": 2} == counts(found)
    assert ["first"] == found["merged"]
    for error in found["errors"]:
        status = (await api.get(f"/status/{error['task_id']}", headers=WAIT)).json()
        assert "cancelled" == status["status"]


async def test_the_first_failure_cancels_the_rest(api: httpx.AsyncClient, agent: Agent) -> None:
    """Tasks that exist as well as those of the fan-out."""
    mark = str(uuid.uuid4())
    ids = await submit(api, work("hang", mark=mark))
    await calls(agent, mark, 1)

    found = await joined(
        api,
        task_ids=ids,
        tasks=[work("hang", mark=mark), work("refuse")],
        join={"at_least": 2},
        on_failure="cancel_rest",
    )
    for call in called(agent, mark):
        await call.abandonment()

    assert "failed" == found["status"]
    assert {"total_tasks": 3, "failed": 1, "cancelled": 2} == counts(found)


async def test_fifty_tasks_are_counted_exactly_at_the_deadline(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """20 complete, 20 fail, 5 are cancelled, 5 never answer: they stay as they are."""
    mark = str(uuid.uuid4())
    answering = await submit(api, *(work(value=number) for number in range(20)))
    failing = await submit(api, *(work("refuse") for _ in range(20)))
    cancelled = await submit(api, *(work("hang", mark=mark) for _ in range(5)))
    hanging = await submit(api, *(work("hang", mark=mark) for _ in range(5)))
    await calls(agent, mark, 10)
    for task_id in cancelled:
        await api.post(f"/tasks/{task_id}/cancel")
    await ended(api, [*answering, *failing, *cancelled])

    found = await joined(api, task_ids=[*hanging, *cancelled, *failing, *answering], deadline=8.0)
    states = {(await api.get(f"/status/{task_id}")).json()["status"] for task_id in hanging}
    for task_id in hanging:
        await api.post(f"/tasks/{task_id}/cancel")

    assert "failed" == found["status"]
    assert "deadline" in found["reason"]
    assert {
        "total_tasks": 50,
        "completed": 20,
        "failed": 20,
        "cancelled": 5,
        "pending": 5,
    } == counts(found)
    assert list(range(20)) == [each["result"] for each in found["results"]]
    assert [*cancelled, *failing] == [each["task_id"] for each in found["errors"]]
    assert {"running"} == states


MERGED = [
    ("list", None, []),
    ("by_agent", {"test_agent": [{"a": {"x": 1}, "b": 1}, {"a": {"y": 2}, "b": 2}]}, []),
    ("deep_merge", {"a": {"x": 1, "y": 2}, "b": 1}, ["/b"]),
]


@pytest.mark.parametrize(("merge", "merged", "conflicts"), MERGED)
async def test_results_are_merged(
    api: httpx.AsyncClient, merge: str, merged: Any, conflicts: list[str]
) -> None:
    """Beside their list; where two say different things, the earlier stays and is told of."""
    tasks = [work(value={"a": {"x": 1}, "b": 1}), work(value={"a": {"y": 2}, "b": 2})]

    found = await joined(api, tasks=tasks, merge=merge)

    assert 2 == len(found["results"])
    assert merged == found["merged"]
    assert conflicts == [each["path"] for each in found["conflicts"]]


async def test_failed_ones_are_redriven_into_the_same_aggregate(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """As soon as the agent is well: the same ids, the same aggregate, all completed."""
    [single] = await submit(api, work("fail", 1))
    before = await joined(api, task_ids=[single], tasks=[work(value=2), work("fail", 3)])
    ids = {each["task_id"] for each in [*before["results"], *before["errors"]]}
    agent.behave(obeying(healed=True))

    answer = await api.post(f"/aggregate/{before['aggregate_id']}/redrive")
    after = await followed(api, before["aggregate_id"])

    assert {"total_tasks": 3, "completed": 1, "failed": 2} == counts(before)
    assert (202, before["aggregate_id"]) == (answer.status_code, answer.json()["aggregate_id"])
    assert ("completed", before["created_at"]) == (after["status"], after["created_at"])
    assert {"total_tasks": 3, "completed": 3} == counts(after)
    assert [1, 2, 3] == [each["result"] for each in after["results"]]
    assert ids == {each["task_id"] for each in after["results"]}


async def test_a_repeated_request_gets_the_same_aggregate(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """By its key, also when it is written otherwise; another body is refused."""
    mark = str(uuid.uuid4())
    key = {"Idempotency-Key": mark, **WAIT}
    body = {"tasks": [work(value=1, mark=mark)], "join": "all"}

    answers = await asyncio.gather(
        *(api.post("/aggregate", json=body, headers=key) for _ in range(10))
    )
    later = await api.post("/aggregate", json={"tasks": body["tasks"]}, headers=key)
    other = await api.post("/aggregate", json={**body, "join": "any"}, headers=key)

    assert {200} == {answer.status_code for answer in [*answers, later]}
    assert 1 == len({answer.json()["aggregate_id"] for answer in [*answers, later]})
    assert "true" == later.headers["idempotency-replayed"]
    assert 1 == len([each for each in answers if "idempotency-replayed" not in each.headers])
    assert 422 == other.status_code
    assert answers[0].json()["aggregate_id"] in other.json()["detail"]
    assert 1 == len(called(agent, mark))


async def test_cancelling_an_aggregate_cancels_its_own_fan_out(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """And leaves the tasks alone that were there before."""
    mark, other = str(uuid.uuid4()), str(uuid.uuid4())
    [single] = await submit(api, work("hang", mark=other))
    started = await api.post(
        "/aggregate",
        json={"task_ids": [single], "tasks": [work("hang", mark=mark) for _ in range(2)]},
        headers=AT_ONCE,
    )
    aggregate_id = started.json()["aggregate_id"]
    own = await calls(agent, mark, 2)

    answer = await api.post(f"/aggregate/{aggregate_id}/cancel")
    found = await followed(api, aggregate_id)
    for call in own:
        await call.abandonment()
    [left] = await calls(agent, other, 1)
    status = (await api.get(f"/status/{single}")).json()
    again = await api.post(f"/aggregate/{aggregate_id}/cancel")
    await api.post(f"/tasks/{single}/cancel")

    assert (202, "running", 3) == (
        started.status_code,
        started.json()["status"],
        started.json()["pending"],
    )
    assert 202 == answer.status_code
    assert "cancelled" == found["status"]
    assert (202, "cancelled") == (again.status_code, again.json()["status"])
    assert "running" == status["status"]
    assert not left.abandoned.is_set()


async def test_five_thousand_items_of_a_batch_are_joined(api: httpx.AsyncClient) -> None:
    """Whoever handed them in as a batch joins them by their ids; the counts are exact."""
    size = 5_000
    tasks = [work("refuse" if place % 100 == 0 else "answer", place) for place in range(size)]
    answer = await api.post("/orchestrate/batch", json=tasks)
    assert 202 == answer.status_code, answer.text
    batch_id = answer.json()["batch_id"]
    ids = [item_id(batch_id, place) for place in range(size)]

    started = await api.post("/aggregate", json={"task_ids": ids}, headers=AT_ONCE)
    found = await followed(api, started.json()["aggregate_id"])

    assert {"total_tasks": size, "completed": size - 50, "failed": 50} == counts(found)
    assert [place for place in range(size) if place % 100] == [
        each["result"] for each in found["results"]
    ]
    assert ids[::100] == [each["task_id"] for each in found["errors"]]


async def test_the_command_line_starts_an_aggregate(stack: Stack, api: httpx.AsyncClient) -> None:
    """Any workflow id will do; the API finds it, and the command line has the result."""
    name = f"nightly-{uuid.uuid4()}"
    given = {"tasks": [work(value=1), work(value=2), work("refuse")], "join": {"at_least": 2}}

    await stack.temporal(
        *("workflow", "start", "--type", "AggregateTasks", "--task-queue", "orchestrator"),
        *("--workflow-id", name, "--input", json.dumps(given)),
    )
    result = json.loads(
        await stack.temporal("workflow", "result", "--workflow-id", name, "--output", "json")
    )
    found = (await api.get(f"/aggregate/{name}", headers=WAIT)).json()

    assert (name, "completed", 2) == (
        found["aggregate_id"],
        found["status"],
        found["completed"],
    )
    assert [1, 2] == [each["result"] for each in found["results"]]
    assert 2 == result["result"]["completed"]


async def test_a_killed_worker_loses_no_join(
    stack: Stack, api: httpx.AsyncClient, agent: Agent
) -> None:
    """What had been joined is known without it; what comes later is counted once."""
    mark = str(uuid.uuid4())
    ended_ids = await submit(api, work(value=1), work("refuse"))
    await ended(api, ended_ids)
    [hanging] = await submit(api, work("hang", value=2, mark=mark))
    await calls(agent, mark, 1)
    started = await api.post(
        "/aggregate", json={"task_ids": [*ended_ids, hanging]}, headers=AT_ONCE
    )
    aggregate_id = started.json()["aggregate_id"]

    async def two_known() -> Any:
        found = (await api.get(f"/aggregate/{aggregate_id}")).json()
        return found if found["pending"] == 1 else None

    known = await eventually(two_known, 60, "two of three")
    agent.behave(obeying(healed=True))
    await stack.kill("worker")
    without = (await api.get(f"/aggregate/{aggregate_id}")).json()
    found = await followed(api, aggregate_id)

    expected = {"total_tasks": 3, "completed": 1, "failed": 1, "pending": 1}
    assert expected == counts(known) == counts(without)
    assert {"total_tasks": 3, "completed": 2, "failed": 1} == counts(found)
    assert [1, 2] == [each["result"] for each in found["results"]]
