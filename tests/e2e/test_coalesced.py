"""Tasks that are handed in at the same moment: started together, and each a task like any other."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from orchestrator.batches import place_of
from tests.e2e.batch_stage import obey
from tests.e2e.coalesced_stage import WAIT, batches_of, config, ended, submit, task
from tests.support.agents import Agent, Reply
from tests.support.stack import Stack, eventually, running

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """An agent that does as the payload says."""
    async with Agent(decide=obey) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The shared product."""
    async with running(tmp_path_factory.mktemp("coalesced"), config(agent)) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client with as many connections as it likes."""
    async with stack.client(limits=httpx.Limits(max_connections=None)) as client:
        yield client


async def accepted(api: httpx.AsyncClient, *tasks: dict[str, object]) -> list[str]:
    """The ids of tasks that were all accepted."""
    answers = await submit(api, tasks)
    assert {202} == {each.status_code for each in answers}, [each.text for each in answers]
    return [each.json()["task_id"] for each in answers]


async def test_many_requests_share_a_few_workflows(
    api: httpx.AsyncClient, agent: Agent, stack: Stack
) -> None:
    """Each has its own id, one call under that, and its own result."""
    ids = await accepted(api, *(task(n) for n in range(100)))
    found = [await ended(api, each) for each in ids]
    batches = batches_of(ids)
    listed = await stack.temporal(
        *("workflow", "list", "-o", "json", "--query"),
        " OR ".join(f"WorkflowId = '{each}'" for each in batches),
    )

    assert 100 == len(set(ids))
    assert list(range(100)) == [each["result"]["n"] for each in found]
    assert [1] * 100 == [len(agent.calls_of(each)) for each in ids]
    assert len(batches) == len(json.loads(listed)) < 50
    assert {"TaskBatch"} == {each["type"]["name"] for each in json.loads(listed)}


async def test_the_answer_is_that_of_any_task(api: httpx.AsyncClient) -> None:
    """By its fields, and by the status that its Location leads to."""
    [answer] = await submit(api, [task()])
    accepted = answer.json()
    status = (await api.get(answer.headers["location"], headers=WAIT)).json()

    assert {"task_id", "status", "agent", "created_at", "updated_at"} == accepted.keys()
    assert ("queued", "test_agent") == (accepted["status"], accepted["agent"])
    same = ("task_id", "agent", "created_at")
    assert [accepted[name] for name in same] == [status[name] for name in same]
    assert ("completed", 1, "many") == (status["status"], status["attempts"], status["pattern"])


async def test_a_request_that_waits_gets_the_result(api: httpx.AsyncClient) -> None:
    """Prefer: wait, for many at once."""
    answers = await submit(api, [task(n) for n in range(30)], headers=WAIT)
    assert {200} == {each.status_code for each in answers}
    assert list(range(30)) == [each.json()["result"]["n"] for each in answers]


async def test_a_key_has_one_task(api: httpx.AsyncClient, agent: Agent) -> None:
    """However often it comes, at once or later; with another body it is refused."""
    headers = {"Idempotency-Key": "coalesced-once"}
    answers = await submit(api, [task(7)] * 20, headers=headers)
    [task_id] = {each.json()["task_id"] for each in answers}
    await ended(api, task_id)
    again = await api.post("/orchestrate", json=task(7), headers=headers)
    other = await api.post("/orchestrate", json=task(8), headers=headers)

    assert (202, task_id) == (again.status_code, again.json()["task_id"])
    assert 422 == other.status_code
    assert 1 == len(agent.calls_of(task_id))


async def test_one_that_fails_is_tried_again_and_redriven_alone(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """Its neighbours complete meanwhile; it keeps its id through dead letter and redrive."""
    ids = await accepted(api, task(0), task(1, status=503), task(2))
    failed = await ended(api, ids[1])
    neighbours = [await ended(api, ids[n]) for n in (0, 2)]
    letters = (await api.get("/dead-letters")).json()["dead_letters"]
    attempts = len(agent.calls_of(ids[1]))
    agent.behave(lambda _: Reply())
    redriven = await api.post(f"/dead-letters/{ids[1]}/redrive")
    again = await ended(api, ids[1])
    agent.behave(obey)

    assert ("failed", 2, True) == (failed["status"], failed["attempts"], failed["dead_letter"])
    assert 2 == attempts
    assert ["completed", "completed"] == [each["status"] for each in neighbours]
    assert ids[1] in {each["task_id"] for each in letters}
    assert 2 == redriven.status_code // 100, redriven.text
    assert "completed" == again["status"]


async def test_the_callers_trace_reaches_the_agent(api: httpx.AsyncClient, agent: Agent) -> None:
    """That of each request, though they share a workflow."""
    traced, plain = await asyncio.gather(
        api.post("/orchestrate", json=task(), headers={"traceparent": TRACE}),
        api.post("/orchestrate", json=task()),
    )
    ids = [each.json()["task_id"] for each in (traced, plain)]
    for each in ids:
        await ended(api, each)
    traces = [agent.calls_of(each)[0].headers["traceparent"] for each in ids]

    assert TRACE == traces[0]
    assert ids[1].replace("-", "") == traces[1].split("-")[1]


async def test_a_wrong_request_meets_nobody_else(api: httpx.AsyncClient) -> None:
    """Whatever is wrong with it."""
    answers = await submit(
        api,
        [task(0), {"pattern": "many"}, {"pattern": "manyy", "payload": {}}, task(1, n=[]), task(2)],
    )
    assert [202, 422, 400, 202, 202] == [each.status_code for each in answers]


async def test_a_large_task_goes_by_itself(api: httpx.AsyncClient) -> None:
    """As any large task: near the most that is allowed, quotes and all."""
    text = '"' * 900_000
    [answer] = await submit(api, [task(0, text=text)])
    found = await ended(api, answer.json()["task_id"])

    assert "completed" == found["status"]
    assert place_of(found["task_id"]) is None


async def test_they_are_no_batches_to_anybody(api: httpx.AsyncClient) -> None:
    """GET /batches lists those that were handed in as such; one by its id is shown all the same."""
    [task_id] = await accepted(api, task())
    await ended(api, task_id)
    [batch_id] = batches_of([task_id])

    async def completed() -> bool:
        found = (await api.get(f"/batches/{batch_id}")).json()
        return bool((found["status"], found["completed"]) == ("completed", found["total"]))

    await eventually(completed, what="the end of its batch")
    listed = (await api.get("/batches")).json()["batches"]
    assert batch_id not in {each["batch_id"] for each in listed}


async def test_a_deadline_that_passes_ends_the_task(api: httpx.AsyncClient, agent: Agent) -> None:
    """While its agent takes its time."""
    answer = await api.post("/orchestrate", json=task(0, hang=True) | {"timeout": 1})
    found = await ended(api, answer.json()["task_id"])
    agent.release()

    assert "failed" == found["status"]
    assert "1 s" in found["error"], found
