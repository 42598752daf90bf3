"""Live streams: what happens to a task, each event once, however often the connection breaks."""

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.e2e.event_streams import Event, events, every, some
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import Stack, agent_config, eventually, free_port, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

DOWN = Reply(status=503)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The shared product, with a rule ``many`` whose tasks are coalesced."""
    config = agent_config(agent.url)
    config["routing_rules"].append(
        config["routing_rules"][0] | {"pattern": "many", "dispatch": "coalesced"}
    )
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


async def submit(api: httpx.AsyncClient, pattern: str = "work") -> str:
    """Submit a task; its id."""
    response = await api.post("/orchestrate", json={"pattern": pattern, "payload": {}})
    assert 202 == response.status_code, response.text
    return str(response.json()["task_id"])


def names(heard: list[Event]) -> list[str]:
    """What happened."""
    return [each.name.removeprefix("task.") for each in heard]


@pytest.mark.parametrize("pattern", ["work", "fast"])
async def test_a_task_is_told_from_its_beginning_to_its_end(
    api: httpx.AsyncClient, agent: Agent, pattern: str
) -> None:
    """Queued, started, each failed attempt, and the end as GET /status shows it."""
    agent.script(DOWN, Reply(delay=0.5, status=500), Reply(body={"ok": True}))
    task_id = await submit(api, pattern)

    heard = await every(api, f"/status/{task_id}/events")

    assert ["queued", "started", "retrying", "retrying", "completed"] == names(heard)
    states = [each.data["status"] for each in heard]
    assert ["queued", "running", "running", "running", "completed"] == states
    first, second = heard[2].data, heard[3].data
    assert (1, 503) == (first["attempt"]["attempt"], first["attempt"]["status"])
    assert (2, 500) == (second["attempt"]["attempt"], second["attempt"]["status"])
    assert first["next_attempt_at"]
    assert "503" in first["last_error"]
    status = (await api.get(f"/status/{task_id}")).json()
    assert status | {"event": "task.completed"} == heard[-1].data


async def test_a_task_that_has_ended_is_told_the_same(api: httpx.AsyncClient, agent: Agent) -> None:
    """Whether it is heard as it happens or read afterwards, the ids and names are the same."""
    agent.script(DOWN, DOWN, Reply())
    task_id = await submit(api)

    live = await every(api, f"/status/{task_id}/events")
    later = await every(api, f"/status/{task_id}/events")

    assert [(each.id, each.name) for each in live] == [(each.id, each.name) for each in later]


async def test_each_event_comes_once_over_twenty_broken_connections(
    api: httpx.AsyncClient, agent: Agent, stack: Stack
) -> None:
    """In order, none twice, none missing, through retries and whichever process answers."""
    chance = random.Random(7)  # noqa: S311
    agent.script(DOWN, Reply(status=500, delay=1), DOWN, Reply(body={"ok": True}, delay=1))
    port, heard, broken = free_port(), list[Event](), 0
    url = f"http://127.0.0.1:{port}"
    async with stack.joined("api", port), httpx.AsyncClient(base_url=url, timeout=70) as other:

        async def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await other.get("/health")).status_code == 200
            return False

        await eventually(answers, what="the second API process")
        task_id = await submit(api)
        path = f"/status/{task_id}/events"
        while broken < 20:
            last = heard[-1].id if heard else None
            hearing = some(chance.choice([api, other]), path, last, 2, heard)
            with contextlib.suppress(TimeoutError):
                assert not await asyncio.wait_for(hearing, chance.uniform(0.01, 0.15))
            broken += 1
        heard += await every(api, path, heard[-1].id)
        wholes = [await every(each, path) for each in (api, other)]
        over = await other.get(path, params={"last_event_id": heard[-1].id})

    assert [*["queued", "started"], *["retrying"] * 3, "completed"] == names(heard)
    assert [[each.id for each in heard]] * 2 == [[each.id for each in one] for one in wholes]
    assert (204, b"") == (over.status_code, over.content)


async def test_a_task_that_fails_becomes_a_dead_letter_and_is_run_again(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """Who has heard the first end hears the second run next; its ids name another run."""
    agent.script(DOWN)
    task_id = await submit(api)
    path = f"/status/{task_id}/events"
    first = await every(api, path)
    assert ["retrying", "dead_lettered", "failed"] == names(first)[-3:]

    agent.script(Reply())
    redriven = await api.post(f"/dead-letters/{task_id}/redrive")
    assert 202 == redriven.status_code, redriven.text

    async def again() -> list[Event]:
        answer = await api.get(path, headers={"Last-Event-ID": first[-1].id})
        return await every(api, path, first[-1].id) if answer.status_code == 200 else []

    second = await eventually(again, what="the second run")
    assert ["queued", "started", "completed"] == names(second)
    assert {first[0].id.split(":")[0]}.isdisjoint(each.id.split(":")[0] for each in second)
    # In the middle of the first run: its rest, then the second.
    both = await every(api, path, first[1].id)
    assert [each.id for each in [*first[2:], *second]] == [each.id for each in both]


async def test_a_cancelled_task_says_so(api: httpx.AsyncClient, agent: Agent) -> None:
    """While its call is under way."""
    agent.script(Reply(hang=True))
    task_id = await submit(api)
    heard = list[Event]()
    await asyncio.wait_for(some(api, f"/status/{task_id}/events", None, 2, heard), 20)
    assert ["queued", "started"] == names(heard)

    await api.post(f"/tasks/{task_id}/cancel")

    rest = await every(api, f"/status/{task_id}/events", heard[-1].id)
    assert ["cancelled"] == names(rest)


async def test_what_does_not_exist_is_answered_as_elsewhere(api: httpx.AsyncClient) -> None:
    """404 for unknown ids, 422 for an event id of no such stream."""
    unknown = str(uuid.uuid4())
    for path in (f"/status/{unknown}", f"/batches/{unknown}", f"/aggregate/{unknown}"):
        answer = await api.get(f"{path}/events")
        assert 404 == answer.status_code, path
        assert "is not known" in answer.json()["detail"]
    answer = await api.get(f"/status/{unknown}/events", headers={"Last-Event-ID": "what?"})
    assert 422 == answer.status_code
    assert "what?" in answer.json()["detail"]


async def test_a_batch_and_its_items_are_told(api: httpx.AsyncClient, agent: Agent) -> None:
    """The batch in numbers that only grow; an item as the task that it is, retried or not."""
    turns: dict[str, int] = {}

    def once_down(call: Call) -> Reply:
        key = call.headers["Idempotency-Key"]
        turns[key] = turns.get(key, 0) + 1
        bad = call.body.get("bad") and turns[key] == 1
        return Reply(status=503) if bad else Reply(body={"ok": True}, delay=0.3)

    agent.behave(once_down)
    tasks = [{"pattern": "work", "payload": {"bad": n == 1}} for n in range(3)]
    batch_id = (await api.post("/orchestrate/batch", json=tasks)).json()["batch_id"]

    heard = await every(api, f"/batches/{batch_id}/events")
    results = (await api.get(f"/batches/{batch_id}/results")).text.splitlines()

    assert "batch.completed" == heard[-1].name
    assert 3 == heard[-1].data["completed"]
    counts = [each.data["completed"] for each in heard]
    assert sorted(counts) == counts
    assert len({each.id for each in heard}) == len(heard)
    over = await api.get(f"/batches/{batch_id}/events", headers={"Last-Event-ID": heard[-1].id})
    assert 204 == over.status_code
    ids = [json.loads(line)["task_id"] for line in results]
    for position, task_id in enumerate(ids):
        item = await every(api, f"/status/{task_id}/events")
        middle = ["retrying"] if position == 1 else []
        assert ["queued", "started", *middle, "completed"] == names(item)
        for index, event in enumerate(item[:-1]):
            rest = await every(api, f"/status/{task_id}/events", event.id)
            assert [each.id for each in item[index + 1 :]] == [each.id for each in rest]


async def test_a_coalesced_task_is_told_as_any_other(api: httpx.AsyncClient, agent: Agent) -> None:
    """Though its batch carries it out, and after a failed attempt a workflow of its own."""
    agent.script(Reply(delay=1.5, status=503), Reply(body={"ok": True}))
    task_id = await submit(api, "many")
    path, begun = f"/status/{task_id}/events", list[Event]()

    await some(api, path, None, 2, begun)
    heard = begun + await every(api, path, begun[-1].id)

    assert ["queued", "started", "retrying", "completed"] == names(heard)
    assert ["batch:1", "batch:2"] == [each.id for each in begun]
    assert [each.id for each in heard] == [each.id for each in await every(api, path)]


async def test_an_aggregate_is_told_with_its_results_at_the_end(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """In numbers before."""
    agent.script(Reply(body={"ok": True}, delay=0.5))
    tasks = [{"pattern": "work", "payload": {}} for _ in range(2)]
    begun = await api.post("/aggregate", json={"tasks": tasks}, headers={"Prefer": "wait=0"})
    aggregate_id = begun.json()["aggregate_id"]

    heard = await every(api, f"/aggregate/{aggregate_id}/events")

    assert "aggregate.completed" == heard[-1].name
    assert 2 == len(heard[-1].data["results"])
    assert heard[-1].data == (await api.get(f"/aggregate/{aggregate_id}")).json()


async def test_a_stream_outlives_the_engine(
    api: httpx.AsyncClient, agent: Agent, stack: Stack
) -> None:
    """Killed and restarted meanwhile, the engine goes on telling on the same connection."""
    agent.script(DOWN, Reply(delay=2))
    task_id = await submit(api)
    heard = list[Event]()
    listening = asyncio.create_task(some(api, f"/status/{task_id}/events", None, 99, heard))

    async def retried() -> bool:
        return "retrying" in names(heard)

    await eventually(retried)
    await stack.kill("engine")

    async with asyncio.timeout(60):
        assert await listening
    assert "completed" == names(heard)[-1]
    assert len({each.id for each in heard}) == len(heard)


async def test_clients_that_leave_leave_nothing_behind(
    api: httpx.AsyncClient, agent: Agent, stack: Stack
) -> None:
    """More streams one after another than may be open at once; no descriptor stays."""
    agent.script(Reply(hang=True))
    task_id = await submit(api)
    pid = stack.pid_of("api")

    def open_files() -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    path = f"/status/{task_id}/events"
    await some(api, path, None, 2, [])
    before = open_files()
    for _ in range(30):
        await asyncio.gather(*(some(api, path, None, 1, []) for _ in range(10)))

    async def closed() -> bool:
        return open_files() <= before + 10

    await eventually(closed)
    await api.post(f"/tasks/{task_id}/cancel")
    async for event in events(api, path):
        last = event
    assert "task.cancelled" == last.name
