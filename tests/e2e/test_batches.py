"""Batches over HTTP on the whole product: handed in, followed, read, cancelled, redriven."""

import asyncio
import contextlib
import itertools
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.batches import item_id
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import Stack, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

WAIT = {"Prefer": "wait=60"}
LINES = {"Content-Type": "application/x-ndjson"}
PACED_RATE, PACED_BURST = 1200, 5
MAX_BATCH_BYTES = 8_000_000


def obey(call: Call) -> Reply:
    """Answer as the payload says: a status, a size, never; else with its number."""
    body = call.body or {}
    if body.get("hang"):
        return Reply(hang=True)
    if body.get("status"):
        return Reply(status=body["status"], body={"detail": "as told"})
    return Reply(body={"n": body.get("n"), "text": "x" * body.get("size", 0)})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[dict[str, Agent]]:
    """One with a rate limit, one that is taken out of service, one whose calls are let go once."""
    async with contextlib.AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(Agent(decide=obey))
            for name in ("work", "paced", "away", "held")
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    agents: dict[str, Agent], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The shared product; the pattern of each agent is its name."""
    config: dict[str, Any] = {
        "agents": {name: {"instances": [{"url": agent.url}]} for name, agent in agents.items()},
        "routing_rules": [
            {"pattern": name, "target_agent": name, "endpoint": "/work"} for name in agents
        ],
        "error_recovery": {
            "max_retries": 1,
            "retry_delay": 0.05,
            "circuit_breaker_threshold": 100_000,
        },
        "limits": {"max_batch_bytes": MAX_BATCH_BYTES},
    }
    config["agents"]["paced"]["rate_limit"] = {
        "rate": PACED_RATE,
        "burst": PACED_BURST,
        "mode": "reject",
    }
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the product."""
    async with stack.client() as client:
        yield client


def task(number: int = 0, pattern: str = "work", **payload: Any) -> dict[str, Any]:
    """One item."""
    return {"pattern": pattern, "payload": {"n": number, **payload}}


async def post(api: httpx.AsyncClient, items: list[Any], **options: Any) -> httpx.Response:
    """Hand a batch in as an array."""
    return await api.post("/orchestrate/batch", json=items, **options)


async def end_of(api: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
    """The batch once it has ended."""
    found = (await api.get(f"/batches/{batch_id}", headers=WAIT)).json()
    assert found["status"] in {"completed", "cancelled", "failed"}, found
    return dict(found)


async def done(api: httpx.AsyncClient, items: list[Any]) -> str:
    """Hand in a batch whose items all complete, and wait for that; its id."""
    answer = await post(api, items)
    assert 202 == answer.status_code, answer.text
    batch_id = str(answer.json()["batch_id"])
    ended = await end_of(api, batch_id)
    assert ("completed", len(items)) == (ended["status"], ended["completed"]), ended
    return batch_id


async def read(
    api: httpx.AsyncClient, batch_id: str, **query: Any
) -> tuple[list[dict[str, Any]], int]:
    """All results by the links from page to page, and how many pages they were."""
    items: list[dict[str, Any]] = []
    following: str | None = str(httpx.URL(f"/batches/{batch_id}/results", params=query))
    pages = 0
    while following:
        answer = await api.get(following)
        assert (200, "application/x-ndjson") == (
            answer.status_code,
            answer.headers["content-type"].partition(";")[0],
        )
        items += map(json.loads, answer.text.splitlines())
        following = answer.links["next"]["url"] if "next" in answer.links else None
        assert ("x-next-cursor" in answer.headers) == (following is not None)
        pages += 1
    return items, pages


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


async def test_a_batch_is_cancelled(api: httpx.AsyncClient, agents: dict[str, Agent]) -> None:
    """Calls in flight are cut off, what has ended stays, what waits is never called."""
    items = [task(0), *(task(number, hang=True) for number in range(1, 400))]
    batch_id = (await post(api, items)).json()["batch_id"]
    first, hanging = item_id(batch_id, 0), item_id(batch_id, 1)

    async def under_way() -> bool:
        found = (await api.get(f"/status/{first}")).json()
        return bool(found["status"] == "completed" and agents["work"].calls_of(hanging))

    await eventually(under_way, 60, "the first outcome and a call that hangs")
    shown = (await api.get(f"/batches/{batch_id}")).json()
    running_item = (await api.get(f"/status/{hanging}")).json()
    answer = await api.post(f"/batches/{batch_id}/cancel")
    ended = await end_of(api, batch_id)
    found, _ = await read(api, batch_id)
    again = await api.post(f"/batches/{batch_id}/cancel")

    assert ("running", "running") == (shown["status"], running_item["status"])
    assert (202, batch_id) == (answer.status_code, answer.json()["batch_id"])
    assert ("cancelled", 1, 399, 0) == (
        ended["status"],
        ended["completed"],
        ended["cancelled"],
        ended["pending"],
    )
    assert Counter(completed=1, cancelled=399) == Counter(each["status"] for each in found)
    await agents["work"].calls_of(hanging)[0].abandonment()
    assert (202, "cancelled") == (again.status_code, again.json()["status"])


async def test_one_item_is_cancelled(api: httpx.AsyncClient, agents: dict[str, Agent]) -> None:
    """As any task that waits: it is never called, and the others are."""
    items = [task(number, "held", hang=True) for number in range(1_800)]
    batch_id = (await post(api, items)).json()["batch_id"]
    first, last = item_id(batch_id, 0), item_id(batch_id, len(items) - 1)

    async def called() -> bool:
        return bool(agents["held"].calls_of(first))

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


async def test_an_unavailable_agent_refuses_the_batch(api: httpx.AsyncClient) -> None:
    """As it refuses a task; the dry run says so; and one that was accepted is not taken back."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    items = [task(0), task(1, "away")]
    accepted = await post(api, items, headers=key)
    await end_of(api, accepted.json()["batch_id"])
    assert (await api.post("/agents/away/trip", json={"reason": "a test"})).is_success

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
