"""The main job over HTTP: submit, follow, list, cancel."""

import asyncio
import json
import uuid
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.support.agents import Agent, Reply
from tests.support.stack import Stack, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

WAIT = {"Prefer": "wait=30"}
FINAL = {"completed", "failed", "cancelled"}


async def submit(api: httpx.AsyncClient, **task: Any) -> dict[str, Any]:
    """Submit a task and return the answer."""
    response = await api.post("/orchestrate", json={"pattern": "work", "payload": {}, **task})
    assert 202 == response.status_code, response.text
    return dict(response.json())


async def end_of(api: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """The task's final status."""
    status = (await api.get(f"/status/{task_id}", headers=WAIT)).json()
    assert status["status"] in FINAL
    return dict(status)


async def test_a_task_is_accepted_called_and_answered_for(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """The documented fields, in both answers; the agent gets the payload unchanged."""
    agent.script(Reply(body={"pages": 3}))
    payload = {"file": "document.pdf", "nested": {"list": [1, 2.5, None, "ü"]}}

    response = await api.post(
        "/orchestrate",
        json={
            "pattern": "work",
            "payload": payload,
            "priority": 4,
            "metadata": {"source": "web_app"},
            "timeout": 60,
        },
    )
    accepted = response.json()
    status = await end_of(api, accepted["task_id"])

    assert 202 == response.status_code
    assert f"/status/{accepted['task_id']}" == response.headers["location"]
    assert {"task_id", "status", "agent", "created_at", "updated_at"} == set(accepted)
    assert ("queued", "test_agent") == (accepted["status"], accepted["agent"])
    assert str(uuid.UUID(accepted["task_id"])) == accepted["task_id"]
    assert {"pages": 3} == status["result"]
    assert ("completed", 1, 4) == (status["status"], status["attempts"], status["priority"])
    assert accepted["created_at"] == status["created_at"]
    assert datetime.fromisoformat(status["updated_at"]) > datetime.fromisoformat(
        status["created_at"]
    )
    assert 0 < status["execution_time"] < 10
    assert payload == agent.calls_of(accepted["task_id"])[0].body


@pytest.mark.parametrize("pattern", ["work", "fast"])
async def test_failures_are_retried_with_the_same_key(
    api: httpx.AsyncClient, agent: Agent, pattern: str
) -> None:
    """Two 503 and a 200: completed at the third attempt, in both ways of dispatch."""
    agent.script(Reply(status=503), Reply(status=503), Reply(body={"ok": True}))

    task_id = (await submit(api, pattern=pattern))["task_id"]
    status = await end_of(api, task_id)

    calls = agent.calls_of(task_id)
    assert ("completed", 3) == (status["status"], status["attempts"])
    assert ["1", "2", "3"] == [call.headers["X-Attempt"] for call in calls]
    assert {task_id} == {call.headers["X-Task-ID"] for call in calls}


@pytest.mark.parametrize("pattern", ["work", "fast"])
async def test_exhausted_retries_fail_the_task_with_the_reason(
    api: httpx.AsyncClient, agent: Agent, pattern: str
) -> None:
    """Four attempts, then failed, saying who answered what."""
    agent.script(Reply(status=500, body={"detail": "disk full"}))

    status = await end_of(api, (await submit(api, pattern=pattern))["task_id"])

    assert ("failed", 4, "AgentFailed") == (
        status["status"],
        status["attempts"],
        status["error_type"],
    )
    assert "test_agent at http://127.0.0.1" in status["error"]
    assert "500" in status["error"]
    assert "disk full" in status["error"]
    assert "result" not in status


@pytest.mark.parametrize("pattern", ["work", "fast"])
async def test_a_refusal_is_final_at_once(
    api: httpx.AsyncClient, agent: Agent, pattern: str
) -> None:
    """A 404 is not retried."""
    agent.script(Reply(status=404))

    task_id = (await submit(api, pattern=pattern))["task_id"]
    status = await end_of(api, task_id)

    assert ("failed", "AgentRejected", 1) == (
        status["status"],
        status["error_type"],
        status["attempts"],
    )
    assert 1 == len(agent.calls_of(task_id))


async def test_status_tells_of_a_retry_to_come(api: httpx.AsyncClient, agent: Agent) -> None:
    """Between attempts: what failed, how often, and when the next attempt is."""
    agent.script(Reply(status=503, headers={"Retry-After": "20"}, body={"detail": "later"}))
    task_id = (await submit(api))["task_id"]
    await agent.called()

    async def backing_off() -> Any:
        status = (await api.get(f"/status/{task_id}")).json()
        return status if status.get("blocked_by") == "retry_backoff" else None

    status = await eventually(backing_off)
    await api.post(f"/tasks/{task_id}/cancel")

    assert ("running", 1) == (status["status"], status["attempts"])
    assert "answered 503" in status["last_error"]
    ahead = datetime.fromisoformat(status["next_attempt_at"]) - datetime.fromisoformat(
        status["updated_at"]
    )
    assert 15 < ahead.total_seconds() < 25


async def test_the_deadline_ends_a_task(api: httpx.AsyncClient, agent: Agent) -> None:
    """A task's own timeout counts for all attempts together."""
    agent.script(Reply(hang=True))

    status = await end_of(api, (await submit(api, timeout=1))["task_id"])

    assert ("failed", "DeadlineExceeded") == (status["status"], status["error_type"])
    assert "deadline of 1 s" in status["error"]


async def test_cancelling_reaches_the_agents_connection(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """The call in flight is cut off, the task ends cancelled, and stays so."""
    agent.script(Reply(hang=True))
    accepted = await submit(api)
    await eventually(lambda: _called(agent, accepted["task_id"]))

    answer = await api.post(f"/tasks/{accepted['task_id']}/cancel")
    status = await end_of(api, accepted["task_id"])
    await agent.calls_of(accepted["task_id"])[0].abandonment()
    again = await api.post(f"/tasks/{accepted['task_id']}/cancel")

    assert 202 == answer.status_code
    assert "cancelled" == status["status"]
    assert (202, "cancelled") == (again.status_code, again.json()["status"])


async def _called(agent: Agent, task_id: str) -> bool:
    return bool(agent.calls_of(task_id))


async def test_prefer_wait_answers_with_the_result(api: httpx.AsyncClient, agent: Agent) -> None:
    """A submission that waits is answered with the final status, and 200."""
    agent.script(Reply(body={"n": 1}))

    response = await api.post("/orchestrate", json={"pattern": "fast", "payload": {}}, headers=WAIT)

    assert 200 == response.status_code
    assert "wait=30" == response.headers["preference-applied"]
    assert {"n": 1} == response.json()["result"]


async def test_prefer_wait_gives_up_in_time(api: httpx.AsyncClient, agent: Agent) -> None:
    """A task that takes longer is answered with 202 and its present state."""
    agent.script(Reply(hang=True))

    response = await api.post(
        "/orchestrate", json={"pattern": "work", "payload": {}}, headers={"Prefer": "wait=1"}
    )
    await api.post(f"/tasks/{response.json()['task_id']}/cancel")

    assert (202, "running") == (response.status_code, response.json()["status"])


async def test_the_same_key_50_times_at_once_is_one_task(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """All get the same answer; another body is refused; after completion as before."""
    agent.script(Reply())
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"pattern": "work", "payload": {"a": 1, "b": 2}}

    answers = await asyncio.gather(
        *(api.post("/orchestrate", json=body, headers=key) for _ in range(50))
    )
    task_id = answers[0].json()["task_id"]
    await end_of(api, task_id)
    reordered = json.dumps({"payload": {"b": 2, "a": 1}, "pattern": "work"}, indent=2)
    later = await api.post(
        "/orchestrate", content=reordered, headers={**key, "Content-Type": "application/json"}
    )
    other = await api.post("/orchestrate", json={**body, "payload": {}}, headers=key)

    assert {202} == {answer.status_code for answer in answers}
    assert 1 == len({answer.text for answer in answers})
    assert (202, answers[0].text) == (later.status_code, later.text)
    assert "true" == later.headers["idempotency-replayed"]
    assert 422 == other.status_code
    assert task_id in other.json()["detail"]
    assert 1 == len(agent.calls_of(task_id))


async def test_tasks_are_listed_by_filters_and_pages(
    api: httpx.AsyncClient, agent: Agent, stack: Stack
) -> None:
    """Each filter selects; pages hold every task once."""
    agent.script(Reply())
    before = datetime.now().astimezone().isoformat()
    ids = {
        (await submit(api, tenant="acme", priority=5, pattern="fast"))["task_id"] for _ in range(5)
    }
    for task_id in ids:
        await end_of(api, task_id)
    query = {
        "tenant": "acme",
        "priority": "5",
        "pattern": "fast",
        "agent": "test_agent",
        "status": "completed",
        "since": before,
    }

    async def listed() -> bool:
        page = (await api.get("/tasks", params=query)).json()
        return ids == {task["task_id"] for task in page["tasks"]}

    await eventually(listed)
    seen: list[str] = []
    cursor = None
    while True:
        parameters = {**query, "limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await api.get("/tasks", params=parameters)).json()
        seen += [task["task_id"] for task in page["tasks"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    nothing = (await api.get("/tasks", params={**query, "tenant": "o'hara\\"})).json()

    assert sorted(ids) == sorted(seen)
    assert [] == nothing["tasks"]


async def test_capabilities_route_without_a_pattern(api: httpx.AsyncClient, agent: Agent) -> None:
    """An agent that has all the capabilities serves the task."""
    agent.script(Reply())
    response = await api.post("/orchestrate", json={"capabilities": ["testing"], "payload": {}})

    status = await end_of(api, response.json()["task_id"])

    assert ("completed", "test_agent") == (status["status"], status["agent"])


@pytest.mark.parametrize("pattern", ["work", "fast"])
@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (b"x" * 2_100_000, "ReplyTooLarge"),
        (b"<html>", "ReplyUnreadable"),
        (b"[NaN]", "ReplyUnreadable"),
    ],
)
async def test_an_unusable_answer_fails_the_task_after_one_call(
    api: httpx.AsyncClient, agent: Agent, pattern: str, body: bytes, error_type: str
) -> None:
    """Too large, or not JSON: a clear failure and no retry."""
    agent.script(Reply(body=body))

    task_id = (await submit(api, pattern=pattern))["task_id"]
    status = await end_of(api, task_id)

    assert ("failed", error_type) == (status["status"], status["error_type"])
    assert 1 == len(agent.calls_of(task_id))


@pytest.mark.parametrize(
    ("size", "expected"), [(1_850_000, 202), (2_200_000, 413), (5_000_000, 413)]
)
async def test_payloads_are_accepted_whole_or_refused(
    api: httpx.AsyncClient, agent: Agent, size: int, expected: int
) -> None:
    """Up to the cap they arrive at the agent; above it 413, never an opaque failure."""
    agent.script(Reply())

    response = await api.post(
        "/orchestrate", json={"pattern": "work", "payload": {"text": "x" * size}}
    )

    assert expected == response.status_code
    if expected == 202:
        task_id = response.json()["task_id"]
        assert "completed" == (await end_of(api, task_id))["status"]
        assert size == len(agent.calls_of(task_id)[0].body["text"])
    else:
        assert "bytes" in response.json()["detail"]


async def test_a_payload_that_grows_when_written_again_is_refused(api: httpx.AsyncClient) -> None:
    """1E5 becomes 100000.0: what is over the engine's limit only then gets 413 as well."""
    numbers = ",".join(["1E5"] * 450_000)
    body = '{"pattern": "work", "payload": {"n": [' + numbers + "]}}"

    response = await api.post(
        "/orchestrate", content=body, headers={"Content-Type": "application/json"}
    )

    assert 413 == response.status_code


async def test_a_null_result_is_a_result(api: httpx.AsyncClient, agent: Agent) -> None:
    """An empty answer completes the task with null."""
    agent.script(Reply(status=204, body=b""))

    status = await end_of(api, (await submit(api))["task_id"])

    assert ("completed", None) == (status["status"], status["result"])


async def test_the_callers_trace_reaches_the_agent(api: httpx.AsyncClient, agent: Agent) -> None:
    """A W3C traceparent is passed on."""
    agent.script(Reply())
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    response = await api.post(
        "/orchestrate", json={"pattern": "work", "payload": {}}, headers={"traceparent": trace}
    )
    task_id = response.json()["task_id"]
    await end_of(api, task_id)

    assert trace == agent.calls_of(task_id)[0].headers["traceparent"]
