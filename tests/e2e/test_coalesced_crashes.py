"""Coalesced tasks through crashes, and within their limits: what was answered for, is done."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.batch_stage import obey
from tests.e2e.coalesced_stage import config, ended, submit, task
from tests.support.agents import Agent
from tests.support.stack import Stack, eventually, running

pytestmark = pytest.mark.e2e

STREAMS = 10


@contextlib.asynccontextmanager
async def product(
    directory: Path, **blocks: Any
) -> AsyncIterator[tuple[Stack, Agent, httpx.AsyncClient]]:
    """One for each test, which breaks it."""
    async with (
        Agent(decide=obey) as agent,
        running(directory, config(agent, **blocks)) as stack,
        stack.client(limits=httpx.Limits(max_connections=None)) as api,
    ):
        yield stack, agent, api


async def stream(api: httpx.AsyncClient, enough: asyncio.Event, accepted: list[str]) -> None:
    """Hand in one task after the other, over whatever happens, until it is enough."""
    while not enough.is_set():
        try:
            answer = await api.post("/orchestrate", json=task(len(accepted)))
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        if answer.status_code == 202:
            accepted.append(answer.json()["task_id"])


async def through(
    api: httpx.AsyncClient, harm: Callable[[], Awaitable[None]], each: int = 60
) -> list[str]:
    """The ids of tasks that were accepted before, while and after harm was done."""
    accepted, enough = list[str](), asyncio.Event()
    streams = [asyncio.create_task(stream(api, enough, accepted)) for _ in range(STREAMS)]

    async def more_than(count: int) -> None:
        async def there() -> bool:
            return len(accepted) > count

        await eventually(there, 60, f"{count} accepted tasks")

    await more_than(each)
    await harm()
    await more_than(len(accepted) + each)
    enough.set()
    await asyncio.gather(*streams)
    return accepted


async def all_done(api: httpx.AsyncClient, agent: Agent, ids: list[str]) -> None:
    """Each was called, and has completed."""
    for task_id in ids:
        found = await ended(api, task_id)
        assert "completed" == found["status"], found
        assert agent.calls_of(task_id)
    assert len(ids) == len(set(ids))


async def test_the_api_is_killed(tmp_path: Path) -> None:
    """In the middle of starts: every task that it had answered for completes."""
    async with product(tmp_path) as (stack, agent, api):
        ids = await through(api, lambda: stack.kill("api"))
        await all_done(api, agent, ids)


async def test_the_engine_is_killed(tmp_path: Path) -> None:
    """What it had taken, it has on disk."""
    async with product(tmp_path) as (stack, agent, api):
        ids = await through(api, lambda: stack.kill("engine"))
        await all_done(api, agent, ids)


async def test_the_worker_is_killed(tmp_path: Path) -> None:
    """Its chunks go to the next one, and their calls bear the same keys."""
    async with product(tmp_path) as (stack, agent, api):
        ids = await through(api, lambda: stack.kill("worker"))
        await all_done(api, agent, ids)
        assert 3 > max(len(agent.calls_of(each)) for each in ids)


async def test_a_frozen_engine_is_told_in_time(tmp_path: Path) -> None:
    """By 503 within the API's own deadline, and to all of a group alike; then it goes on."""
    async with product(tmp_path, temporal={"rpc_timeout": 1}) as (stack, agent, api):
        await submit(api, [task(0)])
        stack.send("engine", signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                answers = await submit(api, map(task, range(20)))
        finally:
            stack.send("engine", signal.SIGCONT)
        assert {503} == {each.status_code for each in answers}

        async def accepts() -> bool:
            [answer] = await submit(api, [task(99)])
            if answer.status_code != 202:
                return False
            await all_done(api, agent, [answer.json()["task_id"]])
            return True

        await eventually(accepts, what="a task that is accepted again")


async def test_a_rate_limit_is_taken_once(tmp_path: Path) -> None:
    """At admission: those over the burst get 429, and the others are called without a pause."""
    limit = {"default_rate": 1, "burst_size": 10, "mode": "reject"}
    async with product(tmp_path, rate_limiting=limit) as (_, agent, api):
        answers = await submit(api, map(task, range(15)))
        good = [each.json()["task_id"] for each in answers if each.status_code == 202]
        async with asyncio.timeout(30):
            await all_done(api, agent, good)

    codes = [each.status_code for each in answers]
    assert (10, 5) == (codes.count(202), codes.count(429))
    assert all("Retry-After" in each.headers for each in answers if each.status_code == 429)


async def test_the_queue_is_bounded(tmp_path: Path) -> None:
    """A coalesced task counts until it has ended."""
    size = 20
    async with product(tmp_path, priority_queue={"max_queue_size": size}) as (stack, agent, api):
        # Each of several APIs lets in as many, before it hears of the others'.
        most = size * len(stack.apis)
        answers = await submit(api, [task(n, hang=True) for n in range(most + size)])
        codes = [each.status_code for each in answers]
        refused = next(each for each in answers if each.status_code == 503)
        agent.release()
        for each in answers:
            if each.status_code == 202:
                await ended(api, each.json()["task_id"])

        async def accepts() -> bool:
            [answer] = await submit(api, [task()])
            return answer.status_code == 202

        await eventually(accepts, what="room in the queue")

    assert size <= codes.count(202) <= most
    assert len(codes) == codes.count(202) + codes.count(503)
    assert "Queue is full" == refused.json()["detail"]


async def test_one_that_is_slow_holds_only_its_own_place(tmp_path: Path) -> None:
    """Those that were started with it leave the queue as they end."""
    async with product(tmp_path, priority_queue={"max_queue_size": 30}) as (_, agent, api):
        answers = await submit(api, [task(n, hang=n == 5) for n in range(25)])
        assert {202} == {each.status_code for each in answers}

        async def counted() -> bool:
            health = (await api.get("/health")).json()
            return bool((health["active_tasks"], health["queue_size"]) == (1, 1))

        await eventually(counted, what="one task that is active")
        more = await submit(api, map(task, range(25)))
        agent.release()
        ids = [each.json()["task_id"] for each in (*answers, *more)]
        await all_done(api, agent, ids)
        assert {1} == {len(agent.calls_of(each)) for each in ids}


async def test_an_agent_that_is_away_refuses(tmp_path: Path) -> None:
    """New tasks; those that were accepted before wait, and their deadline holds."""
    recovery = {
        "max_retries": 0,
        "circuit_breaker_threshold": 1,
        "circuit_breaker_timeout": 600,
        "when_unavailable": "queue",
    }
    async with product(tmp_path, error_recovery=recovery) as (_, agent, api):

        async def shut() -> bool:
            """Each worker has a breaker of its own, which its first failure opens."""
            await submit(api, [task(0, status=500) | {"timeout": 6}])
            return bool((await api.get("/metrics")).json()["agents_status"]["test_agent"] == "open")

        await eventually(shut, what="open breakers")
        [late] = await submit(api, [task(1) | {"timeout": 6}])
        task_id = late.json()["task_id"]

        async def waits() -> bool:
            return bool((await api.get(f"/status/{task_id}")).json()["status"] == "queued")

        # A worker may have it in hand for a moment.
        await eventually(waits, 5, "a task that waits")
        found = await ended(api, task_id)

    assert ("failed", "DeadlineExceeded") == (found["status"], found["error_type"])
    assert "6 s" in found["error"]
    assert not agent.calls_of(task_id)
