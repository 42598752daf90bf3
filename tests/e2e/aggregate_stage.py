"""The product for the tests of aggregates, and what they ask of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from tests.support.agents import Agent, Call, Reply
from tests.support.stack import agent_config, eventually

WAIT = {"Prefer": "wait=60"}
AT_ONCE = {"Prefer": "wait=0"}
FINAL = {"completed", "failed", "cancelled"}


def config(agent: Agent, gated: Agent) -> dict[str, Any]:
    """Two attempts; the other agent takes one call at a time."""
    given = agent_config(agent.url)
    instances = [{"url": gated.url}]
    rule = {"pattern": "gated", "target_agent": "gated_agent", "endpoint": "/work"}
    return {
        "agents": {
            **given["agents"],
            "gated_agent": {"instances": instances, "max_connections": 1},
        },
        "routing_rules": [*given["routing_rules"], rule],
        "error_recovery": {
            "max_retries": 1,
            "retry_delay": 0.05,
            "circuit_breaker_threshold": 100_000,
        },
    }


def obeying(*, healed: bool = False) -> Callable[[Call], Reply]:
    """What the agent does is in the payload: ``answer``, ``refuse``, ``fail`` or ``hang``."""

    def obey(call: Call) -> Reply:
        wish = call.body or {}
        if wish.get("do") == "refuse":
            return Reply(status=404)
        if wish.get("do") == "fail" and not healed:
            return Reply(status=500)
        return Reply(body=wish.get("value"), hang=wish.get("do") == "hang" and not healed)

    return obey


def work(do: str = "answer", value: Any = None, **more: Any) -> dict[str, Any]:
    """A task's request."""
    return {"pattern": "work", "payload": {"do": do, "value": value, **more}}


async def submit(api: httpx.AsyncClient, *tasks: dict[str, Any]) -> list[str]:
    """Start tasks by themselves; their ids."""
    answers = await asyncio.gather(*(api.post("/orchestrate", json=each) for each in tasks))
    return [str(answer.json()["task_id"]) for answer in answers]


async def ended(api: httpx.AsyncClient, ids: list[str]) -> None:
    """Wait until the tasks have ended."""
    for task_id in ids:
        status = (await api.get(f"/status/{task_id}", headers=WAIT)).json()
        assert status["status"] in FINAL, status


async def joined(api: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The aggregate once it has ended."""
    answer = await api.post("/aggregate", json=body, headers=WAIT)
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


async def followed(api: httpx.AsyncClient, aggregate_id: str) -> dict[str, Any]:
    """The aggregate once it has ended, asked patiently through restarts."""

    async def final() -> Any:
        try:
            answer = await api.get(f"/aggregate/{aggregate_id}", headers={"Prefer": "wait=10"})
        except httpx.TransportError:
            return None
        assert answer.status_code in {200, 503}, answer.text
        found = answer.json()
        return found if found.get("status") in FINAL else None

    return dict(await eventually(final, 120, "the end of the aggregate"))


def counts(aggregate: dict[str, Any]) -> dict[str, int]:
    """The numbers that are not 0."""
    names = ("total_tasks", "completed", "failed", "cancelled", "pending")
    return {name: aggregate[name] for name in names if aggregate[name]}


def called(agent: Agent, mark: str) -> list[Call]:
    """The agent's calls whose payload has that mark."""
    return [call for call in agent.work() if call.body.get("mark") == mark]


async def calls(agent: Agent, mark: str, number: int) -> list[Call]:
    """So many calls, once they are under way."""

    async def all_there() -> Any:
        found = called(agent, mark)
        return found if len(found) >= number else None

    return list(await eventually(all_there, what=f"{number} calls"))
