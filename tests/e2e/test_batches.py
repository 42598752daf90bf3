"""Batches over HTTP on the whole product: handed in, refused, repeated, listed."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.batches import item_id
from tests.e2e.batch_stage import (
    MAX_BATCH_BYTES,
    WAIT,
    batch_agents,
    config,
    done,
    end_of,
    post,
    read,
    task,
)
from tests.support.agents import Agent
from tests.support.stack import Stack, eventually, running

pytestmark = [pytest.mark.measured, pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

LINES = {"Content-Type": "application/x-ndjson"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[dict[str, Agent]]:
    """The agents of this module."""
    async with batch_agents("work", "paced", "away") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    agents: dict[str, Agent], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The shared product of this module."""
    async with running(tmp_path_factory.mktemp("stack"), config(agents)) as started:
        yield started


async def test_an_array_of_tasks(api: httpx.AsyncClient) -> None:
    """Accepted at once, carried out, read page by page in order; each item is a task."""
    answer = await post(api, [task(number) for number in range(250)])
    accepted = answer.json()
    batch_id = accepted["batch_id"]
    ended = await end_of(api, batch_id)
    items, pages = await read(api, batch_id, limit=100)
    status = (await api.get(f"/status/{item_id(batch_id, 7)}")).json()
    metrics = (await api.get("/metrics", headers={"Accept": "text/plain"})).text

    assert (202, f"/batches/{batch_id}") == (answer.status_code, answer.headers["location"])
    assert ("queued", 250, 250, 0) == (
        accepted["status"],
        accepted["total"],
        accepted["pending"],
        accepted["rejected_items"],
    )
    assert {"status": "completed", "total": 250, "completed": 250, "failed": 0, "pending": 0} == {
        name: ended[name] for name in ("status", "total", "completed", "failed", "pending")
    }
    assert accepted["created_at"] == ended["created_at"]
    assert 3 == pages
    assert [item_id(batch_id, position) for position in range(250)] == [
        each["task_id"] for each in items
    ]
    assert list(range(250)) == [each["result"]["n"] for each in items]
    assert ("completed", batch_id, "work", "work", 1) == (
        status["status"],
        status["batch_id"],
        status["agent"],
        status["pattern"],
        status["attempts"],
    )
    assert items[7] == status
    [counted] = [
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "orchestrator_requests_total"
        and sample.labels == {"agent": "work", "status": "202"}
    ]
    assert counted >= 250


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/jsonl"])
async def test_one_task_a_line(
    api: httpx.AsyncClient, agents: dict[str, Agent], content_type: str
) -> None:
    """Also waits for the end; the agent sees the caller's trace and the item's id."""
    trace = f"00-{uuid.uuid4().hex}-00f067aa0ba902b7-01"
    body = "".join(json.dumps(task(number)) + "\n" for number in range(3))
    answer = await api.post(
        "/orchestrate/batch",
        content=body,
        headers=WAIT | {"Content-Type": content_type, "traceparent": trace},
    )
    batch_id = answer.json()["batch_id"]
    [call] = agents["work"].calls_of(item_id(batch_id, 2))

    assert (200, "completed", 3) == (
        answer.status_code,
        answer.json()["status"],
        answer.json()["completed"],
    )
    assert "wait=60" == answer.headers["preference-applied"]
    assert trace.split("-")[1] == call.headers["traceparent"].split("-")[1]
    assert (item_id(batch_id, 2), {"n": 2}) == (call.headers["X-Task-ID"], call.body)


async def test_all_mistakes_are_told_and_nothing_is_started(
    api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """With index, field and what is allowed; a line that is no JSON by its number."""
    mark = uuid.uuid4().hex
    good = json.dumps(task(0, mark=mark))
    lines = [good, json.dumps(task(1) | {"priority": 9}), "{", json.dumps(task(3, "wrok"))]
    answer = await api.post("/orchestrate/batch", content="\n".join(lines), headers=LINES)
    problem = answer.json()
    await done(api, [task()])

    assert (422, 422, 3) == (answer.status_code, problem["status_code"], problem["bad_items"])
    assert "application/problem+json" == answer.headers["content-type"]
    assert [(1, "priority"), (2, None), (3, "pattern")] == [
        (each["index"], each["field"]) for each in problem["errors"]
    ]
    assert "line 3 is not JSON" in problem["errors"][1]["message"]
    assert "Unknown pattern 'wrok'; did you mean 'work'?" == problem["errors"][2]["message"]
    assert "3 of 4 items are wrong, and nothing was started" in problem["detail"]
    assert [] == [call for call in agents["work"].work() if (call.body or {}).get("mark") == mark]


async def test_the_good_ones_can_be_started(api: httpx.AsyncClient) -> None:
    """With ``partial``; the answer tells the others. Only bad ones are no batch."""
    items = [task(0), task(1) | {"priority": 9}, task(2)]
    answer = await post(api, items, params={"partial": "true"}, headers=WAIT)
    found, _ = await read(api, answer.json()["batch_id"])
    none = await post(api, items[1:2], params={"partial": "true"})

    assert (200, 2, 1) == (
        answer.status_code,
        answer.json()["total"],
        answer.json()["rejected_items"],
    )
    assert [(1, "priority")] == [
        (each["index"], each["field"]) for each in answer.json()["rejected"]
    ]
    assert [0, 2] == [each["result"]["n"] for each in found]
    assert (422, 1) == (none.status_code, none.json()["bad_items"])


async def test_a_repeated_request_is_the_same_batch(
    api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """By its key, however its JSON is written; with another body it is refused."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    items = [task(number) for number in range(5)]
    first = await post(api, items, headers=key)
    await end_of(api, first.json()["batch_id"])
    lines = "\n".join(json.dumps(each) for each in items)
    again = await api.post("/orchestrate/batch", content=lines, headers=key | LINES)
    other = await post(api, items[:4], headers=key)
    batch_id = first.json()["batch_id"]

    assert [202, 202, 422] == [each.status_code for each in (first, again, other)]
    assert first.json() == again.json()
    assert "true" == again.headers["idempotency-replayed"]
    assert "idempotency-replayed" not in first.headers
    assert "Idempotency-Key was used before" in other.json()["detail"]
    calls = [len(agents["work"].calls_of(item_id(batch_id, position))) for position in range(5)]
    assert [1] * 5 == calls


async def test_a_dry_run_starts_nothing(api: httpx.AsyncClient) -> None:
    """It says which agents would get how many, and finds the same mistakes."""
    items = [task(0), task(1), task(2, "paced")]
    key = {"Idempotency-Key": str(uuid.uuid4())}
    answer = await post(api, items, params={"dry_run": "true"}, headers=key)
    wrong = await post(api, [*items, {}], params={"dry_run": "true"})
    rest = await post(api, [*items, {}], params={"dry_run": "true", "partial": "true"})
    after = await post(api, items, headers=key)

    assert (200, 3, {"work": 2, "paced": 1}, True) == (
        answer.status_code,
        answer.json()["total"],
        answer.json()["agents"],
        answer.json()["admission"]["admitted"],
    )
    assert 422 == wrong.status_code
    assert (3, 1) == (rest.json()["total"], rest.json()["rejected_items"])
    assert (202, False) == (after.status_code, "idempotency-replayed" in after.headers)


async def test_an_unavailable_agent_refuses_the_batch(api: httpx.AsyncClient, stack: Stack) -> None:
    """As it refuses a task; the dry run says so; and one that was accepted is not taken back."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    items = [task(0), task(1, "away")]
    accepted = await post(api, items, headers=key)
    await end_of(api, accepted.json()["batch_id"])
    assert (await api.post("/agents/away/trip", json={"reason": "a test"})).is_success
    await stack.agreed()

    refused = await post(api, items)
    rehearsed = await post(api, items, params={"dry_run": "true"})
    replayed = await post(api, items, headers=key)
    others = await post(api, items[:1])

    assert (503, "Agent 'away' is currently unavailable") == (
        refused.status_code,
        refused.json()["detail"],
    )
    assert int(refused.headers["retry-after"]) >= 1
    assert (False, 503) == (
        rehearsed.json()["admission"]["admitted"],
        rehearsed.json()["admission"]["status_code"],
    )
    assert (202, accepted.json()) == (replayed.status_code, replayed.json())
    assert 202 == others.status_code


async def test_batches_are_listed(api: httpx.AsyncClient) -> None:
    """Newest first, in pages."""
    ids = [await done(api, [task()]) for _ in range(3)]

    async def pages() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            query: dict[str, Any] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
            page = (await api.get("/batches", params=query)).json()
            found += [each for each in page["batches"] if each["batch_id"] in ids]
            cursor = page["next_cursor"]
        return found

    async def all_there() -> Any:
        found = await pages()
        return found if len(found) == len(ids) else None

    found = await eventually(all_there, what="the list")
    assert [(each, 1, 1, "completed") for each in reversed(ids)] == [
        (each["batch_id"], each["total"], each["completed"], each["status"]) for each in found
    ]


async def test_wrong_requests_are_told(api: httpx.AsyncClient) -> None:
    """As problem documents, each with its status."""
    batch_id = await done(api, [task()])
    unknown = item_id("0b8f3f1e-55a1-8c4d-9e1f-6c4f8a2d0000", 0)
    single = (await api.post("/orchestrate", json=task(), headers=WAIT)).json()["task_id"]
    too_large = [task(0, text="x" * MAX_BATCH_BYTES)]
    answers = await asyncio.gather(
        api.get("/batches/never-heard-of-it"),
        api.get("/batches/never-heard-of-it/results"),
        api.post("/batches/never-heard-of-it/cancel"),
        api.post("/batches/never-heard-of-it/redrive"),
        api.get(f"/batches/{single}"),
        api.get(f"/status/{unknown}"),
        api.get(f"/status/{item_id(batch_id, 1)}"),
        api.get(f"/batches/{batch_id}/results?cursor=nonsense"),
        api.get(f"/batches/{batch_id}/results?limit=0"),
        api.get(f"/batches/{batch_id}/results?status=lost"),
        api.get("/batches?cursor=nonsense"),
        api.post(f"/batches/{batch_id}/redrive", json={"rate": 0}),
        post(api, []),
        api.post("/orchestrate/batch", json={"tasks": []}),
        api.post("/orchestrate/batch", content="[]", headers={"Content-Type": "text/csv"}),
        post(api, too_large),
    )

    expected = [*[404] * 7, *[422] * 7, 415, 413]
    assert expected == [each.status_code for each in answers]
    assert expected == [each.json()["status_code"] for each in answers]
    assert {"application/problem+json"} == {each.headers["content-type"] for each in answers}


async def test_many_items_are_accepted_at_once(api: httpx.AsyncClient) -> None:
    """Ten thousand, and not one more."""
    items = [task(number) for number in range(10_001)]
    refused = await post(api, items, params={"dry_run": "true"})
    rehearsed = await post(api, items[:-1], params={"dry_run": "true"})

    assert (422, True) == (refused.status_code, "at most 10,000" in refused.json()["detail"])
    assert (200, 10_000) == (rehearsed.status_code, rehearsed.json()["total"])
