"""Prefect's task that calls the agent; ``python -m bench.peers.prefect_task`` is its worker."""

from typing import Any

import aiohttp
from prefect import task
from prefect.task_worker import serve

AT_ONCE = 50

_sessions: list[aiohttp.ClientSession] = []


@task(name="call", retries=3, persist_result=True)
async def call(url: str, payload: dict[str, Any]) -> Any:
    """Call the agent, by the process's one session."""
    if not _sessions:
        _sessions.append(aiohttp.ClientSession(raise_for_status=True))
    async with _sessions[0].post(url, json=payload) as response:
        return await response.json()


if __name__ == "__main__":
    serve(call, limit=AT_ONCE)
