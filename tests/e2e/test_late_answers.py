"""Agents that answer later, on the real product: 202, then the completion URL or the Location."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent, Call, Reply
from tests.support.stack import Stack, agent_config, eventually, running

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ACCEPTED = Reply(status=202, body={"job": 7})


def _config(url: str) -> dict[str, Any]:
    config = agent_config(url)
    rule = {"target_agent": "test_agent", "endpoint": "/work"}
    config["routing_rules"] += [
        {"pattern": "once", "completion": "none", **rule},
        {"pattern": "watched", "progress_timeout": 1, **rule},
        {"pattern": "short", "answer_timeout": 1, **rule},
        {"pattern": "polled", "completion": "poll", "poll_interval": 0.2, **rule},
        {"pattern": "together", "dispatch": "coalesced", **rule},
    ]
    config["error_recovery"]["max_retries"] = 1
    return config


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, Agent]]:
    """The product, and the agent that its rules name."""
    async with (
        Agent(ACCEPTED) as agent,
        running(tmp_path_factory.mktemp("late"), _config(agent.url)) as stack,
    ):
        yield stack, agent


class Talk:
    """What the tests say to the product."""

    def __init__(self, client: httpx.AsyncClient, agent: Agent) -> None:
        self.client = client
        self.agent = agent

    async def submit(self, pattern: str = "work", **fields: Any) -> str:
        """Hand in a task; its id."""
        body = {"pattern": pattern, "payload": {}, **fields}
        answer = await self.client.post("/orchestrate", json=body)
        return str(answer.json()["task_id"])

    async def status(self, task_id: str, wait: int = 0) -> dict[str, Any]:
        """The task's status, with seconds to wait for its end."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        found: dict[str, Any] = (
            await self.client.get(f"/status/{task_id}", headers=headers)
        ).json()
        return found

    async def waiting(self, task_id: str) -> dict[str, Any]:
        """The task's status once it waits for its answer."""

        async def waits() -> dict[str, Any] | None:
            status = await self.status(task_id)
            return status if status.get("until") and status["blocked_by"] == "answer" else None

        found: dict[str, Any] = await eventually(waits, what="wait for the answer")
        return found

    async def called(self, task_id: str, times: int = 1) -> Call:
        """The so-manieth call of a task."""

        async def made() -> list[Call] | None:
            calls = self.agent.calls_of(task_id)
            return calls if len(calls) >= times else None

        calls: list[Call] = await eventually(made, what=f"call {times}")
        return calls[times - 1]

    async def url(self, task_id: str, times: int = 1) -> str:
        """The completion URL of a task's so-manieth call."""
        return (await self.called(task_id, times)).headers["X-Completion-URL"]

    async def post(self, url: str, body: Any) -> httpx.Response:
        """What the agent posts."""
        return await self.client.post(url, json=body)


@pytest_asyncio.fixture(loop_scope="module")
async def talk(stage: tuple[Stack, Agent]) -> AsyncIterator[Talk]:
    """A client for one test; the agent takes every call with 202 unless told otherwise."""
    stack, agent = stage
    agent.script(ACCEPTED)
    async with stack.client() as client:
        yield Talk(client, agent)


@pytest.mark.parametrize("pattern", ["work", "fast", "together"])
async def test_a_posted_result_completes_the_task(talk: Talk, pattern: str) -> None:
    """Queued, inline and coalesced tasks wait alike, and complete with what was posted."""
    task_id = await talk.submit(pattern)
    status = await talk.waiting(task_id)
    assert (status["status"], status["attempts"]) == ("running", 1)
    answer = await talk.post(await talk.url(task_id), {"result": {"pages": 3}})
    assert (answer.status_code, answer.json()) == (
        200,
        {"task_id": task_id, "received": "result"},
    )
    final = await talk.status(task_id, wait=20)
    assert (final["status"], final["result"], final["attempts"]) == (
        "completed",
        {"pages": 3},
        1,
    )
    assert len(talk.agent.calls_of(task_id)) == 1


async def test_an_answer_faster_than_the_202_is_taken(talk: Talk) -> None:
    """What is posted before the agent has answered the call finds its task nonetheless."""
    talk.agent.script(Reply(status=202, body=None, delay=0.5))
    task_id = await talk.submit()
    answer = await talk.post(await talk.url(task_id), {"result": None})
    assert answer.status_code == 200
    final = await talk.status(task_id, wait=20)
    assert (final["status"], final["result"]) == ("completed", None)


async def test_progress_shows_in_the_status(talk: Talk) -> None:
    """The latest progress shows, until the answer comes."""
    task_id = await talk.submit()
    url = await talk.url(task_id)
    await talk.waiting(task_id)
    for done in (1, 2):
        answer = await talk.post(url, {"progress": {"done": done}})
        assert answer.json() == {"task_id": task_id, "received": "progress"}
    assert (await talk.status(task_id))["progress"] == {"done": 2}
    assert (await talk.post(url, {"result": 1})).status_code == 200
    assert (await talk.status(task_id, wait=20))["status"] == "completed"


async def test_a_retryable_failure_leads_to_another_call(talk: Talk) -> None:
    """The next call carries the same key, the next number and a URL of its own."""
    task_id = await talk.submit()
    first = await talk.url(task_id)
    failure = {"error": "offline", "retryable": True, "retry_after": 0.1}
    assert (await talk.post(first, failure)).status_code == 200
    second = await talk.called(task_id, 2)
    assert second.headers["X-Attempt"] == "2"
    await talk.waiting(task_id)
    assert (await talk.post(first, {"result": "late"})).status_code == 409
    answer = await talk.post(second.headers["X-Completion-URL"], {"result": "good"})
    assert answer.status_code == 200
    final = await talk.status(task_id, wait=20)
    assert (final["result"], final["attempts"]) == ("good", 2)
    outcomes = [each["outcome"] for each in final["attempt_history"]]
    assert outcomes == ["AgentFailed", "success"]


async def test_retryable_failures_use_up_the_attempts(talk: Talk) -> None:
    """After the last attempt the task fails and becomes a dead letter."""
    task_id = await talk.submit()
    for number in (1, 2):
        failure = {"error": {"message": "offline"}, "retryable": True, "retry_after": 0.1}
        assert (await talk.post(await talk.url(task_id, number), failure)).status_code == 200
    final = await talk.status(task_id, wait=20)
    assert (final["status"], final["error_type"], final["attempts"]) == (
        "failed",
        "AgentFailed",
        2,
    )
    assert final["error"] == "Failed after 2 attempts: test_agent answered later: offline"
    assert final["dead_letter"] is True


async def test_a_permanent_failure_ends_the_task(talk: Talk) -> None:
    """Without ``retryable`` the agent is not called again."""
    task_id = await talk.submit()
    await talk.post(await talk.url(task_id), {"error": "no PDF"})
    final = await talk.status(task_id, wait=20)
    assert (final["status"], final["error_type"], final["attempts"]) == (
        "failed",
        "AgentRejected",
        1,
    )


async def test_a_url_is_good_for_one_answer(talk: Talk) -> None:
    """A second post is refused, in clear words."""
    task_id = await talk.submit()
    url = await talk.url(task_id)
    assert (await talk.post(url, {"result": 1})).status_code == 200
    await talk.status(task_id, wait=20)
    again = await talk.post(url, {"result": 2})
    assert (again.status_code, again.json()["status_code"]) == (409, 409)
    assert "has ended (completed)" in again.json()["detail"]
    assert (await talk.status(task_id))["result"] == 1


async def test_forged_and_mangled_urls_are_not_known(talk: Talk) -> None:
    """A signature of another body, and none at all, are answered with 404."""
    task_id, other = await talk.submit(), await talk.submit()
    url, another = await talk.url(task_id), await talk.url(other)
    forged = f"{url.rpartition('.')[0]}.{another.rpartition('.')[2]}"
    for wrong in (forged, url[:-1], "/completions/x", "/completions/%C3%A4.%C3%A4"):
        assert (await talk.post(wrong, {"result": 1})).status_code == 404
    for each in (url, another):
        assert (await talk.post(each, {"result": 1})).status_code == 200


async def test_a_url_expires_with_its_task(talk: Talk) -> None:
    """When the deadline has passed the task has failed, and its URL is gone."""
    task_id = await talk.submit(timeout=1)
    url = await talk.url(task_id)
    final = await talk.status(task_id, wait=20)
    assert (final["status"], final["error_type"]) == ("failed", "DeadlineExceeded")

    async def gone() -> bool:
        return (await talk.post(url, {"result": 1})).status_code == 410

    await eventually(gone, 10, "410")


async def test_a_late_timeout_is_an_attempt(talk: Talk) -> None:
    """An agent that does not answer in time is called again, as often as others."""
    task_id = await talk.submit("short")
    final = await talk.status(task_id, wait=30)
    assert (final["status"], final["error_type"], final["attempts"]) == (
        "failed",
        "AgentTimedOut",
        2,
    )
    assert "took the call and has not answered within 1 s" in final["error"]


async def test_an_agent_that_goes_silent_is_called_again(talk: Talk) -> None:
    """With ``progress_timeout`` each progress buys time, and silence is a failure."""
    task_id = await talk.submit("watched")
    final = await talk.status(task_id, wait=30)
    assert (final["error_type"], final["attempts"]) == ("AgentTimedOut", 2)
    assert "has said nothing for 1 s" in final["error"]


async def test_a_waiting_task_is_cancelled_at_once(talk: Talk) -> None:
    """Its URL is refused from then on."""
    task_id = await talk.submit()
    await talk.waiting(task_id)
    await talk.client.post(f"/tasks/{task_id}/cancel")
    assert (await talk.status(task_id, wait=20))["status"] == "cancelled"
    refused = await talk.post(await talk.url(task_id), {"result": 1})
    assert refused.status_code == 409
    assert "has ended (cancelled)" in refused.json()["detail"]


async def test_a_rule_may_take_202_for_the_answer(talk: Talk) -> None:
    """With ``completion: none`` no URL is sent, and the 202 is a success as any other."""
    task_id = await talk.submit("once")
    final = await talk.status(task_id, wait=20)
    assert (final["status"], final["result"]) == ("completed", {"job": 7})
    assert "X-Completion-URL" not in talk.agent.calls_of(task_id)[0].headers


async def test_a_location_is_polled_where_the_rule_says_so(talk: Talk) -> None:
    """202 there says "not yet", with progress; the first other 2xx is the result."""
    looks: list[Call] = []
    seen = asyncio.Event()

    def answer(call: Call) -> Reply:
        if call.path == "/work":
            return Reply(status=202, headers={"Location": "/jobs/7"})
        looks.append(call)
        if seen.is_set():
            return Reply(body={"text": "there"})
        return Reply(status=202, body={"done": len(looks)})

    talk.agent.behave(answer)
    task_id = await talk.submit("polled")

    async def progressing() -> bool:
        return bool((await talk.status(task_id)).get("progress"))

    await eventually(progressing, what="progress")
    seen.set()
    final = await talk.status(task_id, wait=20)
    assert (final["status"], final["result"]) == ("completed", {"text": "there"})
    assert {each.path for each in looks} == {"/jobs/7"}


async def test_an_agent_may_ask_for_a_pause_beyond_the_deadline(talk: Talk) -> None:
    """The task does not end because of it: there is a last look."""
    hour = {"Location": "/jobs/9", "Retry-After": "3600"}
    talk.agent.script(Reply(status=202, headers=hour))
    final = await talk.status(await talk.submit("polled", timeout=4), wait=30)
    begun, ended = (datetime.fromisoformat(final[each]) for each in ("created_at", "updated_at"))
    assert (ended - begun).total_seconds() > 2.5


async def test_a_location_on_another_server_is_not_followed(talk: Talk) -> None:
    """It would be sent the agent's credentials."""
    talk.agent.script(Reply(status=202, headers={"Location": "http://127.0.0.1:9/jobs/7"}))
    task_id = await talk.submit("polled")
    final = await talk.status(task_id, wait=20)
    assert (final["status"], final["error_type"]) == ("failed", "ReplyUnreadable")


async def test_work_that_the_agent_has_forgotten_is_done_anew(talk: Talk) -> None:
    """404 at the Location leads to another call."""

    def answer(call: Call) -> Reply:
        if call.path != "/work":
            return Reply(status=404)
        second = call.headers["X-Attempt"] == "2"
        return Reply() if second else Reply(status=202, headers={"Location": "/jobs/8"})

    talk.agent.behave(answer)
    final = await talk.status(await talk.submit("polled"), wait=20)
    assert (final["status"], final["attempts"]) == ("completed", 2)


async def test_items_of_a_batch_wait_as_tasks_of_their_own(talk: Talk) -> None:
    """The batch's chunk ends; each item takes its own answer, and the batch counts it."""
    body = [{"pattern": "work", "payload": {"n": n}} for n in range(2)]
    batch = (await talk.client.post("/orchestrate/batch", json=body)).json()["batch_id"]
    await eventually(lambda: _items_of(talk, batch, 2), what="calls of the items")
    for call in await _items_of(talk, batch, 2):
        task_id = call.headers["X-Task-ID"]
        assert (await talk.waiting(task_id))["batch_id"] == batch
        answer = await talk.post(call.headers["X-Completion-URL"], {"result": call.body})
        assert answer.status_code == 200
    final = await talk.client.get(f"/batches/{batch}", headers={"Prefer": "wait=20"})
    assert final.json()["completed"] == 2
    lines = (await talk.client.get(f"/batches/{batch}/results")).text.splitlines()
    assert [json.loads(line)["result"] for line in lines] == [{"n": 0}, {"n": 1}]


async def _items_of(talk: Talk, batch: str, number: int) -> list[Call]:
    lines = (await talk.client.get(f"/batches/{batch}/results")).text.splitlines()
    ids = {json.loads(line)["task_id"] for line in lines}
    calls = [call for each in ids for call in talk.agent.calls_of(each)]
    return calls if len(calls) == number else []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "exactly one of result, error and progress"),
        ({"result": 1, "error": "x"}, "exactly one of result, error and progress"),
        ({"result": 1, "retryable": True}, "go with an error"),
        ({"error": None}, "say what went wrong"),
        ({"results": 1}, "results"),
    ],
)
async def test_what_is_no_report_is_refused(talk: Talk, body: Any, words: str) -> None:
    """422 says what to send; the URL can be used still."""
    task_id = await talk.submit()
    url = await talk.url(task_id)
    refused = await talk.post(url, body)
    assert (refused.status_code, words in refused.json()["detail"]) == (422, True)
    assert (await talk.post(url, {"result": 1})).status_code == 200


async def test_too_much_progress_is_refused(talk: Talk) -> None:
    """413; a status is read often."""
    task_id = await talk.submit()
    url = await talk.url(task_id)
    assert (await talk.post(url, {"progress": "x" * 10_001})).status_code == 413
    assert (await talk.post(url, {"result": 1})).status_code == 200


async def test_waiting_tasks_outlive_a_restart_of_everything(tmp_path: Path) -> None:
    """Engine, worker and API are killed while a task waits; the old URL completes it."""
    async with Agent(ACCEPTED) as agent, running(tmp_path, _config(agent.url)) as stack:
        async with stack.client() as client:
            talk = Talk(client, agent)
            task_id = await talk.submit()
            url = await talk.url(task_id)
            await talk.waiting(task_id)
        for part in ("worker", "api", "engine"):
            await stack.kill(part)
        await stack.stop()
        await stack.start()
        async with stack.client() as client:
            talk = Talk(client, agent)
            assert (await talk.status(task_id))["blocked_by"] == "answer"
            await talk.post(url, {"progress": "half"})
            assert (await talk.status(task_id))["progress"] == "half"
            began = time.monotonic()
            assert (await talk.post(url, {"result": "after all"})).status_code == 200
            final = await talk.status(task_id, wait=30)
            assert (final["status"], final["result"]) == ("completed", "after all")
            assert time.monotonic() - began < 30
            assert len(agent.calls_of(task_id)) == 1
