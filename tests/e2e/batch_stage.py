"""What the tests of batches share: agents that do as the payload says, and ways to hand in."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.agents import Agent, Call, Reply

WAIT = {"Prefer": "wait=60"}
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


@contextlib.asynccontextmanager
async def batch_agents(*names: str) -> AsyncIterator[dict[str, Agent]]:
    """Agents of these names, which obey."""
    async with contextlib.AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(Agent(decide=obey)) for name in names}


def config(agents: dict[str, Agent]) -> dict[str, Any]:
    """The pattern of each agent is its name; one called ``paced`` has a rate limit."""
    found: dict[str, Any] = {
        "agents": {name: {"instances": [{"url": agent.url}]} for name, agent in agents.items()},
        "routing_rules": [
            # What hangs does so until it is let go.
            {"pattern": name, "target_agent": name, "endpoint": "/work", "timeout": 300}
            for name in agents
        ],
        "error_recovery": {
            "max_retries": 1,
            "retry_delay": 0.05,
            "circuit_breaker_threshold": 100_000,
        },
        "limits": {"max_batch_bytes": MAX_BATCH_BYTES},
    }
    if "paced" in agents:
        found["agents"]["paced"]["rate_limit"] = {
            "rate": PACED_RATE,
            "burst": PACED_BURST,
            "mode": "reject",
        }
    return found


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
