"""Single items of a batch that are cancelled while their calls are in flight, by HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from orchestrator.batches import item_id
from tests.e2e.batch_stage import batch_agents, config, end_of, post, read, task
from tests.support.agents import Agent
from tests.support.stack import Stack, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

SOON_SECONDS = 10.0
"""Long before the calls of the others would end by themselves."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[dict[str, Agent]]:
    """Agents whose calls hang until they are let go."""
    async with batch_agents("batched", "coalesced") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    agents: dict[str, Agent], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The shared product of this module."""
    settings = config(agents)
    [rule] = [each for each in settings["routing_rules"] if each["pattern"] == "coalesced"]
    rule["dispatch"] = "coalesced"
    async with running(tmp_path_factory.mktemp("stack"), settings) as started:
        yield started


async def cancel(api: httpx.AsyncClient, agent: Agent, task_id: str) -> None:
    """Cancel a task, and see its call cut off and its status tell that, both soon."""

    async def ended() -> bool:
        return await state(api, task_id) == "cancelled"

    asked = await api.post(f"/tasks/{task_id}/cancel")
    assert 202 == asked.status_code, asked.text
    async with asyncio.timeout(SOON_SECONDS):
        await agent.calls_of(task_id)[0].abandonment()
    await eventually(ended, SOON_SECONDS, "cancelled")


async def state(api: httpx.AsyncClient, task_id: str) -> str:
    """Of a task."""
    return str((await api.get(f"/status/{task_id}")).json()["status"])


async def test_one_item_is_cancelled_while_the_others_go_on(
    api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """And then another; nothing is called twice."""
    agent = agents["batched"]
    answer = await post(api, [task(number, "batched", hang=True) for number in range(5)])
    batch_id = answer.json()["batch_id"]
    ids = [item_id(batch_id, position) for position in range(5)]
    await agent.called(5)
    await cancel(api, agent, ids[1])
    await cancel(api, agent, ids[3])
    others = [await state(api, ids[position]) for position in (0, 2, 4)]
    counts = (await api.get(f"/batches/{batch_id}")).json()
    again = await api.post(f"/tasks/{ids[1]}/cancel")
    agent.release()
    ended = await end_of(api, batch_id)
    items, _ = await read(api, batch_id)

    assert ["running"] * 3 == others
    assert (2, 3) == (counts["cancelled"], counts["pending"])
    assert "cancelled" == again.json()["status"]
    assert ("completed", 3, 2) == (ended["status"], ended["completed"], ended["cancelled"])
    assert ["completed", "cancelled", "completed", "cancelled", "completed"] == [
        each["status"] for each in items
    ]
    assert [1] * 5 == [len(agent.calls_of(each)) for each in ids]


async def test_a_task_that_shares_a_workflow_is_cancelled_as_any_task(
    api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """With ``dispatch: coalesced`` its caller knows nothing of the others."""
    agent = agents["coalesced"]

    async def submit(number: int) -> str:
        answer = await api.post("/orchestrate", json=task(number, "coalesced", hang=True))
        return str(answer.json()["task_id"])

    async def completed() -> Any:
        return {await state(api, each) for each in ids[1:]} == {"completed"}

    ids = await asyncio.gather(*map(submit, range(4)))
    await agent.called(4)
    await cancel(api, agent, ids[0])
    others = [await state(api, each) for each in ids[1:]]
    agent.release()
    await eventually(completed)

    assert ["running"] * 3 == others
    assert "cancelled" == await state(api, ids[0])
    assert [1] * 4 == [len(agent.calls_of(each)) for each in ids]
