"""The product for the tests of admission, and what they ask of it."""

import asyncio
from typing import Any

import httpx

from tests.support.agents import Agent
from tests.support.metrics import metrics_of
from tests.support.stack import Stack

WAIT = {"Prefer": "wait=30"}
MAX_QUEUE = 30
METERED_RATE, METERED_BURST = 600, 20
SLOW = {"rate": 0.6, "burst": 2, "mode": "reject"}
"""Two at once, and then one in 100 seconds."""

LIMITED = ("limited", "replayed", "rehearsed", "shared")
NARROW = ("narrow", "ordered")


def config(agents: dict[str, Agent]) -> dict[str, Any]:
    """The pattern of each agent is its name."""
    found: dict[str, Any] = {
        "agents": {name: {"instances": [{"url": agent.url}]} for name, agent in agents.items()},
        "routing_rules": [
            {"pattern": name, "target_agent": name, "endpoint": "/work"} for name in agents
        ],
        "priority_queue": {"max_queue_size": MAX_QUEUE},
    }
    for name in LIMITED:
        found["agents"][name]["rate_limit"] = SLOW
    for name in NARROW:
        found["agents"][name]["max_connections"] = 1
    found["agents"]["metered"]["rate_limit"] = {
        "rate": METERED_RATE,
        "burst": METERED_BURST,
        "mode": "queue",
    }
    for rule in found["routing_rules"]:
        if rule["pattern"] == "metered":
            rule["dispatch"] = "inline"
    found["routing_rules"].append(
        {
            "pattern": "with fallback",
            "target_agent": "away",
            "endpoint": "/work",
            "fallback_agents": ["spare"],
        }
    )
    return found


async def post(
    api: httpx.AsyncClient, pattern: str, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    """Submit a task."""
    body = {"pattern": pattern, "payload": {}, **fields}
    return await api.post("/orchestrate", json=body, headers=headers)


async def rehearse(api: httpx.AsyncClient, pattern: str) -> httpx.Response:
    """Submit a task as a dry run."""
    return await api.post("/orchestrate?dry_run=true", json={"pattern": pattern, "payload": {}})


async def complete(api: httpx.AsyncClient, *ids: str) -> None:
    """Wait until the tasks have completed."""
    answers = await asyncio.gather(*(api.get(f"/status/{each}", headers=WAIT) for each in ids))
    assert ["completed"] * len(ids) == [answer.json()["status"] for answer in answers]


def assert_problem(response: httpx.Response, status: int, detail: str) -> None:
    """A problem document that says when to come back."""
    body = response.json()
    assert (status, status, detail) == (response.status_code, body["status_code"], body["detail"])
    assert "application/problem+json" == response.headers["content-type"]
    assert int(response.headers["retry-after"]) >= 1


async def refusals(stack: Stack, agent: str) -> dict[str, float]:
    """How often submissions for the agent were refused, by reason."""
    found: dict[str, float] = {}
    for (name, labels), value in (await metrics_of(stack)).samples.items():
        told = dict(labels)
        if name == "orchestrator_admission_refusals_total" and told["agent"] == agent:
            found[told["reason"]] = value
    return found
