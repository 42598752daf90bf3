"""Receivers are told of tasks' ends by the whole product."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent, Reply
from tests.support.receivers import SECRET, hook, verified
from tests.support.stack import Stack, agent_config, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]
DELAYS = [0.1] * 7


def config(agent: Agent, **callbacks: Any) -> dict[str, Any]:
    """One agent, quick retries of callbacks, and receivers on this machine."""
    found = agent_config(agent.url)
    found["routing_rules"].append(
        {
            "pattern": "together",
            "target_agent": "test_agent",
            "endpoint": "/work",
            "dispatch": "coalesced",
        }
    )
    found["error_recovery"]["max_retries"] = 1
    found["callbacks"] = {
        "secret": SECRET,
        "allow": ["127.0.0.1"],
        "retry_delays": DELAYS,
        "timeout": 2,
        **callbacks,
    }
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The shared product of this module."""
    async with running(tmp_path_factory.mktemp("stack"), config(agent)) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Agent]:
    """Who is told."""
    async with Agent() as receiver:
        yield receiver


async def submit(api: httpx.AsyncClient, receiver: Agent, **fields: Any) -> str:
    """Hand in a task; its id."""
    body = {"pattern": "work", "payload": {}, "callback_url": hook(receiver)} | fields
    answer = await api.post("/orchestrate", json=body)
    assert 202 == answer.status_code, answer.text
    return str(answer.json()["task_id"])


async def callback(api: httpx.AsyncClient, callback_id: str, status: str) -> dict[str, Any]:
    """The callback once it is so."""

    async def found() -> dict[str, Any] | None:
        answer = (await api.get(f"/callbacks/{callback_id}")).json()
        return answer if answer.get("status") == status else None

    return dict(await eventually(found, what=f"callback {status}"))


async def test_a_receiver_that_is_down_gets_one_delivery(
    api: httpx.AsyncClient, receiver: Agent
) -> None:
    """After five attempts that fail, the same message once; the task had ended long before."""
    down = [Reply(status=503)] * 3 + [Reply(reset=True), Reply(status=500)]
    receiver.script(*down, Reply(status=204, body=b""))
    task_id = await submit(api, receiver)
    task = (await api.get(f"/status/{task_id}", headers={"Prefer": "wait=20"})).json()
    await receiver.called(6)
    found = await callback(api, task_id, "delivered")
    events = [verified(each) for each in receiver.calls]
    assert [task_id] * 6 == [each.webhook_id for each in events]
    assert 1 == len({each.text for each in receiver.calls})
    assert ("task.completed", "completed") == (events[-1].type, events[-1].data["status"])
    assert (6, 204) == (found["attempts"], found["status_code"])
    assert task | {"updated_at": ""} == events[-1].data | {"updated_at": ""}


@pytest.mark.parametrize(
    ("reply", "attempts", "error_type"),
    [
        (Reply(status=410), 1, "CallbackGone"),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}), 8, "CallbackExhausted"),
    ],
)
async def test_what_cannot_be_delivered_is_dead_until_it_is_redelivered(
    api: httpx.AsyncClient, receiver: Agent, reply: Reply, attempts: int, error_type: str
) -> None:
    """Listed with the reason, and sent again with the same id; redirects are not followed."""
    receiver.script(reply)
    task_id = await submit(api, receiver)
    dead = await callback(api, task_id, "dead")
    assert attempts == len(receiver.calls)
    assert (attempts, error_type) == (dead["attempts"], dead["error_type"])

    async def listed() -> Any:
        query = {"status": "dead", "task_id": task_id}
        return (await api.get("/callbacks", params=query)).json()["callbacks"]

    [item] = await eventually(listed)
    assert (dead["error"], "task.completed") == (item["error"], item["type"])
    receiver.script(Reply())
    answer = await api.post(f"/callbacks/{task_id}/redeliver", json={"by": "ops"})
    assert 202 == answer.status_code, answer.text
    await callback(api, task_id, "delivered")
    assert {task_id} == {verified(each).webhook_id for each in receiver.calls}
    assert attempts + 1 == len(receiver.calls)


async def test_a_receiver_that_hangs_holds_up_no_task(
    api: httpx.AsyncClient, receiver: Agent
) -> None:
    """The attempt is cut off, and the next one arrives."""
    receiver.behave(lambda _: Reply(hang=len(receiver.calls) == 1))
    task_id = await submit(api, receiver)
    task = await api.get(f"/status/{task_id}", headers={"Prefer": "wait=20"})
    assert "completed" == task.json()["status"]
    await (await receiver.called()).abandonment()
    found = await callback(api, task_id, "delivered")
    assert 2 == found["attempts"]


async def test_a_failure_and_its_redrive_are_told_each(
    api: httpx.AsyncClient, agent: Agent, receiver: Agent
) -> None:
    """The second with an id of its own."""
    agent.script(Reply(status=500))
    task_id = await submit(api, receiver)
    await receiver.called(1)
    await callback(api, task_id, "delivered")
    agent.script(Reply())
    assert 202 == (await api.post(f"/dead-letters/{task_id}/redrive")).status_code
    await receiver.called(2)
    await callback(api, f"{task_id}~2", "delivered")
    first, second = map(verified, receiver.calls)
    assert ("task.failed", True) == (first.type, first.data["dead_letter"])
    assert ("task.completed", f"{task_id}~2") == (second.type, second.webhook_id)
    assert task_id == second.data["task_id"]
    assert 1 == len(second.data["earlier_runs"])


async def test_a_cancelled_task_is_told(
    api: httpx.AsyncClient, agent: Agent, receiver: Agent
) -> None:
    """As cancelled."""
    agent.script(Reply(hang=True))
    before = len(agent.calls)
    task_id = await submit(api, receiver)
    await agent.called(before + 1)
    await api.post(f"/tasks/{task_id}/cancel")
    await receiver.called(1)
    agent.script(Reply())
    assert "task.cancelled" == verified(receiver.calls[0]).type


async def test_items_of_a_batch_are_told_one_by_one(
    api: httpx.AsyncClient, agent: Agent, receiver: Agent
) -> None:
    """Completed, and failed after they went on alone; those without a receiver are not."""
    agent.behave(lambda call: Reply(status=500 if call.body["n"] == 1 else 200))
    tasks = [
        {"pattern": "work", "payload": {"n": n}}
        | ({"callback_url": hook(receiver)} if n < 3 else {})
        for n in range(4)
    ]
    answer = await api.post("/orchestrate/batch", json=tasks, headers={"Prefer": "wait=30"})
    assert 200 == answer.status_code, answer.text
    await receiver.called(3)
    agent.script(Reply())
    batch_id = answer.json()["batch_id"]

    async def all_delivered() -> bool:
        page = await api.get("/callbacks", params={"batch": batch_id, "status": "delivered"})
        return len(page.json()["callbacks"]) == 3

    await eventually(all_delivered)
    events = [verified(each) for each in receiver.calls]
    assert ["task.completed", "task.completed", "task.failed"] == sorted(e.type for e in events)
    for event in events:
        status = (await api.get(f"/status/{event.webhook_id}")).json()
        assert status | {"updated_at": ""} == event.data | {"updated_at": ""}


async def test_a_cancelled_batch_tells_of_every_item(
    api: httpx.AsyncClient, agent: Agent, receiver: Agent
) -> None:
    """Also of those whose calls were in flight."""
    agent.script(Reply(hang=True))
    before = len(agent.calls)
    task = {"pattern": "work", "payload": {}, "callback_url": hook(receiver)}
    batch = (await api.post("/orchestrate/batch", json=[task] * 5)).json()
    await agent.called(before + 1)
    await api.post(f"/batches/{batch['batch_id']}/cancel")
    await receiver.called(5)
    agent.script(Reply())
    events = [verified(each) for each in receiver.calls]
    assert ["task.cancelled"] * 5 == [each.type for each in events]
    assert 5 == len({each.webhook_id for each in events})


async def test_coalesced_tasks_are_told_each(api: httpx.AsyncClient, receiver: Agent) -> None:
    """Under their own ids."""
    many = [submit(api, receiver, pattern="together") for _ in range(20)]
    task_ids = await asyncio.gather(*many)
    await receiver.called(20)
    assert set(task_ids) == {verified(each).webhook_id for each in receiver.calls}


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://10.0.0.1/",
        "http://0x7f.2:8080/",
        "http://[::ffff:169.254.169.254]/latest/meta-data",
        "http://example.com:22/",
        "http://me:word@example.com/",
    ],
)
async def test_a_receiver_inside_is_refused_at_submit(api: httpx.AsyncClient, url: str) -> None:
    """For a task, and for the item of a batch."""
    task = {"pattern": "work", "payload": {}, "callback_url": url}
    one = await api.post("/orchestrate", json=task)
    many = await api.post("/orchestrate/batch", json=[task])
    assert (422, 422) == (one.status_code, many.status_code)
    assert one.json()["detail"].startswith("callback_url: ")
    assert "callback_url" in many.json()["detail"]


async def test_the_worker_may_die_in_the_middle_of_a_delivery(
    api: httpx.AsyncClient, stack: Stack, receiver: Agent
) -> None:
    """Another attempt comes, with the same id."""
    receiver.behave(lambda _: Reply(hang=len(receiver.calls) == 1))
    task_id = await submit(api, receiver)
    await receiver.called(1)
    await stack.kill("worker")
    found = await callback(api, task_id, "delivered")
    assert {task_id} == {verified(each).webhook_id for each in receiver.calls}
    assert found["attempts"] >= 2
