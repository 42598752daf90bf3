"""Cancelling many tasks by a filter: counted first, followed, stopped."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent, Reply
from tests.support.stack import Stack, agent_config, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

MANY = 200
PATIENCE_SECONDS = 90.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """One that answers nobody until it is released."""
    async with Agent(Reply(hang=True)) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A product whose agents take two calls at a time, so that the others wait."""
    config = agent_config(agent.url)
    async with Agent(Reply(hang=True)) as never:
        config["agents"]["never"] = {"instances": [{"url": never.url}]}
        rule = {"pattern": "never", "target_agent": "never", "endpoint": "/work"}
        config["routing_rules"].append(rule)
        for each in config["agents"].values():
            each["max_connections"] = 2
        async with running(tmp_path_factory.mktemp("stack"), config) as started:
            yield started


def tenant() -> str:
    """One that no other test has."""
    return f"t-{uuid.uuid4()}"


async def submit(api: httpx.AsyncClient, count: int, whose: str, **fields: Any) -> list[str]:
    """Tasks that wait, once the engine counts them."""
    body = {"pattern": "work", "payload": {}, "tenant": whose} | fields
    answers = await asyncio.gather(*(api.post("/orchestrate", json=body) for _ in range(count)))

    async def counted() -> bool:
        return await count_of(api, whose) >= count

    await eventually(counted, PATIENCE_SECONDS, "the count of the submitted tasks")
    return [str(answer.json()["task_id"]) for answer in answers]


async def count_of(api: httpx.AsyncClient, whose: str) -> int:
    """How many open tasks of the tenant an order would mean."""
    dry = await api.post("/tasks/cancel", json={"tenant": whose, "dry_run": True})
    assert {"matched", "dry_run"} == set(dry.json()), dry.text
    return int(dry.json()["matched"])


async def states(api: httpx.AsyncClient, ids: list[str]) -> Counter[str]:
    """How many of the tasks are in which state."""
    found: Counter[str] = Counter()
    for start in range(0, len(ids), 20):
        answers = await asyncio.gather(
            *(api.get(f"/status/{task_id}") for task_id in ids[start : start + 20])
        )
        found.update(answer.json()["status"] for answer in answers)
    return found


async def carried_out(api: httpx.AsyncClient, location: str) -> dict[str, Any]:
    """The order, once it has ended."""

    async def ended() -> Any:
        status = (await api.get(location)).json()
        return status if status["state"] != "running" else None

    return dict(await eventually(ended, PATIENCE_SECONDS, "the end of the order"))


async def test_many_are_counted_first_and_then_cancelled(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """Those that are meant, waiting and running ones; the others go on."""
    whose, other = tenant(), tenant()
    ids = await submit(api, MANY, whose)
    urgent = await submit(api, 3, whose, priority=5)
    others = await submit(api, 3, other)

    dry = await api.post("/tasks/cancel", json={"tenant": whose, "priority": 3, "dry_run": True})
    before = await states(api, ids)
    answer = await api.post(
        "/tasks/cancel", json={"filter": {"tenant": whose, "priority": 3}, "reason": "a mistake"}
    )
    done = await carried_out(api, answer.headers["location"])

    async def all_ended() -> bool:
        return await count_of(api, whose) == len(urgent)

    await eventually(all_ended, PATIENCE_SECONDS, "the end of the cancelled tasks")
    after = await states(api, ids)
    agent.release()
    spared = [
        (await api.get(f"/status/{task_id}", headers={"Prefer": "wait=30"})).json()["status"]
        for task_id in urgent + others
    ]

    assert (200, {"matched": MANY, "dry_run": True}) == (dry.status_code, dry.json())
    assert {"queued", "running"} >= set(before)
    assert (202, MANY, "running") == (
        answer.status_code,
        answer.json()["matched"],
        answer.json()["state"],
    )
    assert f"/tasks/cancellations/{done['order_id']}" == answer.headers["location"]
    assert ("completed", MANY, MANY, 0) == (
        done["state"],
        done["matched"],
        done["done"],
        done["failed"],
    )
    assert {"cancelled": MANY} == after
    assert ["completed"] * 6 == spared


async def test_an_order_is_stopped(api: httpx.AsyncClient, stack: Stack) -> None:
    """It says so, and stays so, in Temporal's own tools too; one that has ended stays as it is."""
    whose = tenant()
    await submit(api, 30, whose, pattern="never")

    async def stopped() -> Any:
        # The engine may be faster; then another order is stopped.
        answer = await api.post("/tasks/cancel", json={"tenant": whose})
        location = answer.headers["location"]
        status = await api.post(f"{location}/stop")
        assert 202 == status.status_code, status.text
        found = status.json()
        return (location, found) if found["state"] == "stopped" else None

    location, found = await eventually(stopped, PATIENCE_SECONDS, "a stopped order")
    again = await api.post(f"{location}/stop")
    seen = await stack.temporal(
        "batch", "describe", "--job-id", f"cancellation/{found['order_id']}"
    )
    rest = await api.post("/tasks/cancel", json={"tenant": whose})
    done = await carried_out(api, rest.headers["location"])
    late = await api.post(f"{rest.headers['location']}/stop")

    assert {"order_id", "state", "matched", "done", "failed", "tenant"} == set(found)
    assert (202, "stopped") == (again.status_code, again.json()["state"])
    assert "CancelWorkflow" in seen
    assert "completed" == done["state"]
    assert (202, done) == (late.status_code, late.json())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/tasks/cancel", None, 422, '{"all": true}'),
        ("POST", "/tasks/cancel", {"filter": {}}, 422, '{"all": true}'),
        ("POST", "/tasks/cancel", {"tenant": "acme", "pattern": ""}, 422, "pattern"),
        ("POST", "/tasks/cancel", {"all": True, "agent": "a"}, 422, "leave one of them"),
        ("POST", "/tasks/cancel", {"filter": {}, "agent": "a"}, 422, "not in both"),
        ("POST", "/tasks/cancel", {"agnet": "a"}, 422, "agnet"),
        ("POST", "/tasks/cancel", {"filter": {"status": "queued"}}, 422, "status cannot select"),
        ("GET", "/tasks/cancellations/unknown", None, 404, "Cancellation 'unknown' is not known"),
        ("POST", "/tasks/cancellations/unknown/stop", None, 404, "unknown"),
        ("GET", "/tasks/cancellations/%00", None, 404, "not known"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    api: httpx.AsyncClient, method: str, path: str, body: Any, status: int, words: str
) -> None:
    """As a problem document."""
    response = (
        await api.request(method, path, json=body)
        if body is not None
        else (await api.request(method, path))
    )
    assert status == response.status_code, response.text
    assert words in response.json()["detail"]


async def test_tasks_and_dead_letters_are_found_by_their_batch(api: httpx.AsyncClient) -> None:
    """Where there are none, none is found."""
    params = {"batch": str(uuid.uuid4())}
    tasks = await api.get("/tasks", params=params)
    letters = await api.get("/dead-letters", params=params)

    assert {"tasks": [], "next_cursor": None} == tasks.json()
    assert {"dead_letters": [], "next_cursor": None} == letters.json()
