"""What the tests of the dashboard have the product do."""

from typing import Any

import httpx

from tests.support.stack import eventually


async def submit(api: httpx.AsyncClient, payload: dict[str, Any], wait: int = 0) -> str:
    """A task's id, after it has ended if there is time to wait."""
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    task = {"pattern": "work", "payload": payload}
    answer = await api.post("/orchestrate", json=task, headers=headers)
    assert answer.status_code in {200, 202}, answer.text
    return str(answer.json()["task_id"])


async def buried(api: httpx.AsyncClient, **payload: Any) -> str:
    """The id of a task that lies among the dead letters."""
    task_id = await submit(api, {"status": 500, "times": 4, **payload}, wait=60)

    async def listed() -> bool:
        return (await api.get(f"/dead-letters/{task_id}")).status_code == 200

    await eventually(listed)
    return task_id


async def status_of(api: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """The status of a task."""
    found: dict[str, Any] = (await api.get(f"/status/{task_id}")).json()
    return found
