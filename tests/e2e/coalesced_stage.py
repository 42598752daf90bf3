"""What the tests of coalesced tasks share: the product, and many requests at the same moment."""

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx

from orchestrator.batches import place_of
from tests.support.agents import Agent

WAIT = {"Prefer": "wait=60"}


def config(agent: Agent, **blocks: Any) -> dict[str, Any]:
    """Rules ``many`` (coalesced) and ``work`` for one agent."""
    rule = {"target_agent": "test_agent", "endpoint": "/work", "timeout": 300}
    return {
        "agents": {"test_agent": {"instances": [{"url": agent.url}]}},
        "routing_rules": [
            {**rule, "pattern": "many", "dispatch": "coalesced"},
            {**rule, "pattern": "work"},
        ],
        "error_recovery": {
            "max_retries": 1,
            "retry_delay": 0.05,
            "circuit_breaker_threshold": 100_000,
        },
        **blocks,
    }


def task(number: int = 0, **payload: Any) -> dict[str, Any]:
    """One of the coalesced rule."""
    return {"pattern": "many", "payload": {"n": number, **payload}}


async def submit(
    api: httpx.AsyncClient, tasks: Iterable[dict[str, Any]], **options: Any
) -> list[httpx.Response]:
    """Hand in all at the same moment; the answers in their order."""
    return list(
        await asyncio.gather(*(api.post("/orchestrate", json=each, **options) for each in tasks))
    )


def batches_of(ids: Iterable[str]) -> set[str]:
    """The batches that the tasks were started in."""
    places = [place_of(each) for each in ids]
    assert all(places), places
    return {place[0] for place in places if place}


async def ended(api: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """The task's status once it has ended."""
    found = (await api.get(f"/status/{task_id}", headers=WAIT)).json()
    assert found.get("status") in {"completed", "failed", "cancelled"}, found
    return dict(found)
