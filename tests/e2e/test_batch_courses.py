"""How batches go on: cancelled, redriven, paced, and of any size."""

import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from orchestrator.batches import item_id
from tests.e2e.batch_stage import (
    PACED_BURST,
    PACED_RATE,
    WAIT,
    batch_agents,
    config,
    done,
    end_of,
    obey,
    post,
    read,
    task,
)
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import Stack, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[dict[str, Agent]]:
    """The agents of this module."""
    async with batch_agents("work", "paced", "held") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    agents: dict[str, Agent], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The shared product of this module."""
    async with running(tmp_path_factory.mktemp("stack"), config(agents)) as started:
        yield started


async def test_a_batch_is_cancelled(api: httpx.AsyncClient, agents: dict[str, Agent]) -> None:
    """Calls in flight are cut off, what has ended stays, what waits is never called."""
    mark = uuid.uuid4().hex
    items = [task(0), *(task(number, hang=True, mark=mark) for number in range(1, 400))]
    batch_id = (await post(api, items)).json()["batch_id"]

    def hanging() -> list[Call]:
        return [call for call in agents["work"].work() if call.body.get("mark") == mark]

    async def under_way() -> bool:
        found = (await api.get(f"/status/{item_id(batch_id, 0)}")).json()
        return bool(found["status"] == "completed" and hanging())

    await eventually(under_way, 60, "the first outcome and a call that hangs")
    shown = (await api.get(f"/batches/{batch_id}")).json()
    called = (await api.get(f"/status/{hanging()[0].headers['X-Task-ID']}")).json()
    answer = await api.post(f"/batches/{batch_id}/cancel")
    ended = await end_of(api, batch_id)
    found, _ = await read(api, batch_id)
    again = await api.post(f"/batches/{batch_id}/cancel")
    for call in hanging():
        await call.abandonment()

    assert ("running", "running") == (shown["status"], called["status"])
    assert (202, batch_id) == (answer.status_code, answer.json()["batch_id"])
    assert ("cancelled", 1, 399, 0) == (
        ended["status"],
        ended["completed"],
        ended["cancelled"],
        ended["pending"],
    )
    assert Counter(completed=1, cancelled=399) == Counter(each["status"] for each in found)
    assert len(hanging()) < 399
    assert (202, "cancelled") == (again.status_code, again.json()["status"])


async def test_one_item_is_cancelled(api: httpx.AsyncClient, agents: dict[str, Agent]) -> None:
    """As any task that waits: it is never called, and the others are."""
    items = [task(number, "held", hang=True) for number in range(1_800)]
    batch_id = (await post(api, items)).json()["batch_id"]
    last = item_id(batch_id, len(items) - 1)

    async def called() -> bool:
        return bool(agents["held"].work())

    await eventually(called, 60, "the first call")
    before = (await api.get(f"/status/{last}")).json()
    answer = await api.post(f"/tasks/{last}/cancel")
    status = (await api.get(f"/status/{last}", headers=WAIT)).json()
    agents["held"].release()
    ended = await end_of(api, batch_id)

    assert ("queued", 202, "cancelled") == (
        before["status"],
        answer.status_code,
        status["status"],
    )
    assert ("completed", 1_799, 1) == (ended["status"], ended["completed"], ended["cancelled"])
    assert [] == agents["held"].calls_of(last)
    assert status == (await api.get(f"/status/{last}")).json()


async def test_failed_items_are_redriven(api: httpx.AsyncClient, agents: dict[str, Agent]) -> None:
    """They wait among the dead letters by their ids, and the batch counts how they end then."""
    items = [task(number, status=0 if number % 3 else 500) for number in range(9)]
    items.append(task(9, status=400))
    batch_id = (await post(api, items)).json()["batch_id"]
    ended = await end_of(api, batch_id)
    failed, _ = await read(api, batch_id, status="failed")
    broken = [item_id(batch_id, position) for position in (0, 3, 6)]

    async def listed() -> bool:
        page = (await api.get("/dead-letters", params={"batch": batch_id})).json()
        return sorted(broken) == sorted(each["task_id"] for each in page["dead_letters"])

    await eventually(listed, what="the dead letters")
    matched = (await api.post(f"/batches/{batch_id}/redrive", json={"dry_run": True})).json()
    agents["work"].behave(lambda _: Reply(body={"healed": True}))
    try:
        answer = await api.post(f"/batches/{batch_id}/redrive", json={"reason": "mended"})
        statuses = [
            (await api.get(f"/status/{each}", headers=WAIT)).json()
            for each in broken
            if await _redriven(api, each)
        ]
    finally:
        agents["work"].behave(obey)

    async def counted() -> Any:
        found = (await api.get(f"/batches/{batch_id}")).json()
        return found if found["completed"] == 9 else None

    after = await eventually(counted, what="the new counts")
    results, _ = await read(api, batch_id)

    assert ("completed", 6, 4) == (ended["status"], ended["completed"], ended["failed"])
    assert [*broken, item_id(batch_id, 9)] == [each["task_id"] for each in failed]
    assert [("AgentFailed", 2, True)] * 3 == [
        (each["error_type"], each["attempts"], each.get("dead_letter")) for each in failed[:3]
    ]
    assert ("AgentRejected", 1) == (failed[3]["error_type"], failed[3]["attempts"])
    assert (3, True) == (matched["matched"], matched["dry_run"])
    assert 202 == answer.status_code
    assert [("completed", {"healed": True}, batch_id)] * 3 == [
        (each["status"], each["result"], each["batch_id"]) for each in statuses
    ]
    assert (9, 1, 0) == (after["completed"], after["failed"], after["pending"])
    assert ["completed"] * 9 + ["failed"] == [each["status"] for each in results]


async def _redriven(api: httpx.AsyncClient, task_id: str) -> bool:
    """Wait until the task is no longer failed."""

    async def renewed() -> bool:
        return bool((await api.get(f"/status/{task_id}")).json()["status"] != "failed")

    await eventually(renewed, what="the redrive")
    return True


async def test_a_limited_agent_is_paced(api: httpx.AsyncClient, agents: dict[str, Agent]) -> None:
    """A batch larger than its bucket is not refused, and its calls keep to the limit."""
    batch_id = await done(api, [task(number, "paced") for number in range(40)])
    times = sorted(
        agents["paced"].calls_of(item_id(batch_id, position))[0].at for position in range(40)
    )

    rate = PACED_RATE / 60
    for first, last in itertools.combinations(range(len(times)), 2):
        most = PACED_BURST + rate * (times[last] - times[first])
        assert last - first + 1 <= 1.1 * most + 1


async def test_results_of_any_size(api: httpx.AsyncClient) -> None:
    """Thirty of one megabyte each: none is lost, pages stay small."""
    size = 1_000_000
    batch_id = await done(api, [task(number, size=size) for number in range(30)])
    items, pages = await read(api, batch_id)
    single = (await api.get(f"/status/{item_id(batch_id, 29)}")).json()

    assert [(number, size) for number in range(30)] == [
        (each["result"]["n"], len(each["result"]["text"])) for each in items
    ]
    assert pages > 10
    assert items[29] == single


async def test_bodies_that_one_workflow_cannot_hold(
    api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """Come in parts, and are one batch all the same."""
    items = [task(number, text="é" * 100_000) for number in range(30)]
    key = {"Idempotency-Key": str(uuid.uuid4())}
    answer = await post(api, items, headers=key)
    batch_id = answer.json()["batch_id"]
    ended = await end_of(api, batch_id)
    again = await post(api, items, headers=key)
    found, _ = await read(api, batch_id, limit=7)
    listed = await api.get("/batches", params={"limit": 500})
    last = agents["work"].calls_of(item_id(batch_id, 29))

    assert (202, 30) == (answer.status_code, answer.json()["total"])
    assert ("completed", 30, 30) == (ended["status"], ended["total"], ended["completed"])
    assert answer.json() == again.json()
    assert list(range(30)) == [each["result"]["n"] for each in found]
    assert [1, items[29]["payload"]] == [len(last), last[0].body]
    assert not [each for each in listed.json()["batches"] if "/" in each["batch_id"]]
