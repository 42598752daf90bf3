"""Tenants share an agent's queue: many tasks of one do not delay the few of another."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.agents import Agent
from tests.support.stack import eventually, running

pytestmark = pytest.mark.e2e

AT_ONCE = 20


@asynccontextmanager
async def shut_agent(directory: Path, agent: Agent) -> AsyncIterator[httpx.AsyncClient]:
    """A product whose agent is held shut, so that what is submitted waits in its queue."""
    config = {
        "agents": {"test_agent": {"instances": [{"url": agent.url}], "max_connections": 2}},
        "routing_rules": [{"pattern": "work", "target_agent": "test_agent", "endpoint": "/work"}],
        "load_balancing": {"slow_start": 0},
        "priority_queue": {"tenant_weights": {"heavy": 3}},
        "error_recovery": {"when_unavailable": "queue"},
    }
    async with running(directory, config) as stack, stack.client() as api:
        await order(api, "trip")

        async def obeyed() -> bool:
            agents = (await api.get("/agents/test_agent")).json()
            return bool(agents["breaker"] == "forced_open")

        await eventually(obeyed)
        # Every process has read the fleet by then, the worker too.
        await asyncio.sleep(2)
        yield api


async def order(api: httpx.AsyncClient, what: str) -> None:
    """Have an operator's order carried out."""
    answer = await api.post(f"/agents/test_agent/{what}", json={"reason": "a test"})
    assert answer.is_success, answer.text


async def submit(api: httpx.AsyncClient, tenant: str, count: int) -> None:
    """Submit so many tasks of a tenant."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turn:
            body = {"pattern": "work", "payload": {"tenant": tenant}, "tenant": tenant}
            answer = await api.post("/orchestrate", json=body)
            assert 202 == answer.status_code, answer.text

    await asyncio.gather(*(one() for _ in range(count)))


async def queued(api: httpx.AsyncClient, count: int) -> None:
    """Wait until the engine counts so many waiting calls."""

    async def all_there() -> bool:
        return bool((await api.get("/health")).json()["queue_size"] >= count)

    await eventually(all_there, 30, f"{count} waiting calls")


async def test_five_tasks_are_not_delayed_by_five_hundred_of_another(tmp_path: Path) -> None:
    """Though they came last."""
    async with Agent() as agent, shut_agent(tmp_path, agent) as api:
        await submit(api, "many", 500)
        await submit(api, "few", 5)
        await queued(api, 500)
        agent.calls.clear()
        await order(api, "reset")
        await eventually(lambda: _worked(agent, 30), 30, "calls")
        tenants = [str(call.body["tenant"]) for call in agent.work()[:30]]

    assert 5 == Counter(tenants)["few"]


async def test_tenants_share_by_weight(tmp_path: Path) -> None:
    """Of the first forty calls three of four are those of the tenant that weighs three."""
    async with Agent() as agent, shut_agent(tmp_path, agent) as api:
        await submit(api, "light", 60)
        await submit(api, "heavy", 60)
        await queued(api, 115)
        agent.calls.clear()
        await order(api, "reset")
        await eventually(lambda: _worked(agent, 40), 30, "calls")
        tenants = [str(call.body["tenant"]) for call in agent.work()[:40]]

    assert 26 <= Counter(tenants)["heavy"] <= 34


async def _worked(agent: Agent, count: int) -> bool:
    return len(agent.work()) >= count
