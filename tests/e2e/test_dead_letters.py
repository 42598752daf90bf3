"""Tasks that failed for good, over HTTP and on the command line: look, run again, give up."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agents import Agent, Call, Reply
from tests.support.stack import BIN, Stack, agent_config, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

WAIT = {"Prefer": "wait=30"}
BROKEN = Reply(status=500, body={"detail": "disk full"})


def config(agent: Agent) -> dict[str, Any]:
    """Two attempts, and breakers that stay out of the way."""
    return {
        **agent_config(agent.url),
        "error_recovery": {
            "max_retries": 1,
            "retry_delay": 0.05,
            "circuit_breaker_threshold": 100_000,
        },
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The shared product of this module."""
    async with running(tmp_path_factory.mktemp("stack"), config(agent)) as started:
        yield started


async def end_of(api: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """The status once the task's present run has ended."""
    status = (await api.get(f"/status/{task_id}", headers=WAIT)).json()
    assert status["status"] in {"completed", "failed"}, status
    return dict(status)


async def fail(api: httpx.AsyncClient, count: int, tenant: str) -> list[str]:
    """Tasks that have failed, once the list shows them."""
    body = {"pattern": "work", "payload": {"n": 1}, "tenant": tenant}
    answers = await asyncio.gather(*(api.post("/orchestrate", json=body) for _ in range(count)))
    ids = [str(answer.json()["task_id"]) for answer in answers]
    for task_id in ids:
        assert (await end_of(api, task_id))["dead_letter"]
    await lists(api, tenant, ids)
    return ids


async def lists(api: httpx.AsyncClient, tenant: str, ids: list[str]) -> None:
    """Wait until the tenant's list is just that."""

    async def same() -> bool:
        page = (await api.get("/dead-letters", params={"tenant": tenant, "limit": 500})).json()
        return sorted(ids) == sorted(each["task_id"] for each in page["dead_letters"])

    await eventually(same, what="the list of dead letters")


async def carried_out(api: httpx.AsyncClient, location: str, seconds: float = 30) -> dict[str, Any]:
    """The order about many, once it has ended."""

    async def ended() -> Any:
        try:
            answer = await api.get(location)
        except httpx.TransportError:
            return None
        # 503: the worker that was killed is not back yet.
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return None
        status = answer.json()
        return status if status["state"] != "running" else None

    return dict(await eventually(ended, seconds, "the end of the redrive"))


async def command(stack: Stack, *arguments: str, code: int = 0) -> str:
    """What `orchestrator` prints, which has to end with that code."""
    process = await asyncio.create_subprocess_exec(
        str(BIN / "orchestrator"),
        *arguments,
        env=stack.variables(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert code == process.returncode, errors.decode() + output.decode()
    return (errors if code else output).decode()


def tenant() -> str:
    """One that no other test has."""
    return f"t-{uuid.uuid4()}"


async def test_an_exhausted_task_is_healed_and_redriven(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """One dead letter; after the redrive completed, its first run shown, the list empty."""
    agent.script(BROKEN)
    whose = tenant()
    [task_id] = await fail(api, 1, whose)
    [item] = (await api.get("/dead-letters", params={"tenant": whose})).json()["dead_letters"]
    detail = (await api.get(f"/dead-letters/{task_id}")).json()
    agent.script(Reply(body={"pages": 3}))

    answer = await api.post(f"/dead-letters/{task_id}/redrive", json={"reason": "healed"})
    status = await end_of(api, task_id)
    await lists(api, whose, [])
    again = await api.post(f"/dead-letters/{task_id}/redrive")

    assert ("AgentFailed", 2, "test_agent") == (item["error_type"], item["attempts"], item["agent"])
    assert "disk full" in item["error"]
    assert {"pattern": "work", "payload": {"n": 1}, "tenant": whose} == detail["request"]
    assert [1, 2] == [attempt["attempt"] for attempt in detail["attempt_history"]]
    assert (202, task_id) == (answer.status_code, answer.json()["task_id"])
    assert ("completed", {"pages": 3}) == (status["status"], status["result"])
    assert [("AgentFailed", 2)] == [
        (run["error_type"], run["attempts"]) for run in status["earlier_runs"]
    ]
    assert item["created_at"] == status["created_at"]
    assert (404, 404) == (again.status_code, again.json()["status_code"])
    assert {task_id} == {call.headers["Idempotency-Key"] for call in agent.calls_of(task_id)}


async def test_a_discarded_task_stays_failed(api: httpx.AsyncClient, agent: Agent) -> None:
    """And is no longer listed."""
    agent.script(BROKEN)
    whose = tenant()
    [task_id] = await fail(api, 1, whose)

    answer = await api.post(f"/dead-letters/{task_id}/discard")
    await lists(api, whose, [])

    assert (202, {"task_id": task_id, "resolution": "discarded"}) == (
        answer.status_code,
        answer.json(),
    )
    status = await end_of(api, task_id)
    assert ("failed", False) == (status["status"], "dead_letter" in status)
    assert 404 == (await api.get(f"/dead-letters/{task_id}")).status_code


async def test_a_discarded_item_of_a_batch_waits_no_more(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """Its own status says so."""
    agent.script(BROKEN)
    body = [{"pattern": "work", "payload": {}, "tenant": tenant()}]
    batch = (await api.post("/orchestrate/batch", json=body, headers=WAIT)).json()["batch_id"]
    task_id = (await api.get(f"/batches/{batch}/results")).json()["task_id"]

    async def waits() -> bool:
        return (await api.get(f"/dead-letters/{task_id}")).status_code == 200

    await eventually(waits, what="the dead letter")
    before = await end_of(api, task_id)
    await api.post(f"/dead-letters/{task_id}/discard")

    async def discarded() -> bool:
        return not await waits()

    await eventually(discarded, what="the end of the dead letter")
    after = await end_of(api, task_id)
    assert (True, None) == (before["dead_letter"], after.get("dead_letter"))


async def test_many_are_counted_first_and_then_redriven_at_the_rate(
    api: httpx.AsyncClient, agent: Agent
) -> None:
    """A dry run changes nothing; then all complete, no faster than asked."""
    agent.script(BROKEN)
    whose = tenant()
    ids = await fail(api, 6, whose)
    agent.script(Reply())
    before = len(agent.calls)

    dry = await api.post("/dead-letters/redrive", json={"tenant": whose, "dry_run": True})
    unchanged = len([call for call in agent.calls[before:] if call.path == "/work"])
    began = asyncio.get_running_loop().time()
    answer = await api.post(
        "/dead-letters/redrive", json={"filter": {"tenant": whose}, "rate": 5, "reason": "healed"}
    )
    done = await carried_out(api, answer.headers["location"])
    seconds = asyncio.get_running_loop().time() - began
    ends = [(await end_of(api, task_id))["status"] for task_id in ids]

    assert (200, {"action": "redrive", "matched": 6, "dry_run": True}) == (
        dry.status_code,
        dry.json(),
    )
    assert 0 == unchanged
    assert (202, 6) == (answer.status_code, answer.json()["matched"])
    assert f"/dead-letters/redrives/{done['redrive_id']}" == answer.headers["location"]
    assert ("completed", 6, 0) == (done["state"], done["done"], done["failed"])
    assert ["completed"] * 6 == ends
    assert seconds >= 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/dead-letters/unknown", None, 404, "Task 'unknown' is not among the dead letters"),
        ("POST", "/dead-letters/unknown/redrive", None, 404, "unknown"),
        ("POST", "/dead-letters/unknown/discard", {"reason": "x"}, 404, "unknown"),
        ("POST", "/dead-letters/unknown/redrive", {"raeson": "x"}, 422, "raeson"),
        ("POST", "/dead-letters/redrive", None, 422, '{"all": true}'),
        ("POST", "/dead-letters/discard", {}, 422, '{"all": true}'),
        ("POST", "/dead-letters/redrive", {"filter": {}}, 422, '{"all": true}'),
        ("POST", "/dead-letters/discard", {"agent": "a", "batch": ""}, 422, "batch"),
        ("POST", "/dead-letters/redrive", {"all": True, "agent": "a"}, 422, "leave one of them"),
        ("POST", "/dead-letters/redrive", {"filter": {}, "agent": "a"}, 422, "not in both"),
        ("POST", "/dead-letters/redrive", {"all": True, "rate": 0}, 422, "rate"),
        ("POST", "/dead-letters/redrive", {"agnet": "a"}, 422, "agnet"),
        ("GET", "/dead-letters/redrives/unknown", None, 404, "Redrive 'unknown' is not known"),
        ("POST", "/dead-letters/redrives/unknown/cancel", None, 404, "unknown"),
        ("GET", "/dead-letters?cursor=nonsense", None, 422, "cursor"),
        ("GET", "/dead-letters?since=0001-01-01T00:00:00%2B14:00", None, 422, "since"),
        ("GET", "/dead-letters?priority=9", None, 422, "priority"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    api: httpx.AsyncClient, method: str, path: str, body: Any, status: int, words: str
) -> None:
    """As a problem document."""
    response = (
        await api.request(method, path, json=body)
        if body is not None
        else (await api.request(method, path))
    )
    assert status == response.status_code, response.text
    assert words in response.json()["detail"]


async def test_a_killed_worker_redrives_each_task_once(tmp_path: Path) -> None:
    """Killed in the middle of 40: the next goes on, and every task is run just once more."""
    healed = False

    def decide(_: Call) -> Reply:
        return Reply() if healed else BROKEN

    async with (
        Agent(decide=decide) as agent,
        running(tmp_path, config(agent)) as own,
        own.client() as api,
    ):
        whose = tenant()
        ids = await fail(api, 40, whose)
        healed = True
        before = Counter(call.headers.get("Idempotency-Key") for call in agent.calls)
        answer = await api.post("/dead-letters/redrive", json={"tenant": whose, "rate": 10})
        await eventually(lambda: _again(agent, before, ids, 10))
        await own.kill("worker")
        done = await carried_out(api, answer.headers["location"], 90)
        ends = [await end_of(api, task_id) for task_id in ids]
        await lists(api, whose, [])

    assert ("completed", 40, 40, 0) == (
        done["state"],
        done["matched"],
        done["done"],
        done["failed"],
    )
    assert {"completed"} == {end["status"] for end in ends}
    assert {1} == {len(end["earlier_runs"]) for end in ends}


async def _again(agent: Agent, before: Counter[str | None], ids: list[str], count: int) -> bool:
    now = Counter(call.headers.get("Idempotency-Key") for call in agent.calls)
    return sum(1 for task_id in ids if now[task_id] > before[task_id]) >= count


async def test_the_command_line_lists_shows_and_redrives(
    stack: Stack, api: httpx.AsyncClient, agent: Agent
) -> None:
    """By the API, one and many."""
    agent.script(BROKEN)
    whose = tenant()
    [first, second, third] = await fail(api, 3, whose)
    agent.script(Reply())

    listed = json.loads(await command(stack, "dead-letters", "--tenant", whose, "--json"))
    table = await command(stack, "dead-letters", "--tenant", whose)
    shown = await command(stack, "dead-letters", "show", first)
    counted = await command(stack, "dead-letters", "redrive", "--tenant", whose, "--dry-run")
    no_items = await command(stack, "dead-letters", "redrive", "--batch", whose, "--dry-run")
    one = await command(stack, "dead-letters", "redrive", first, "--reason", "healed")
    discarded = await command(stack, "dead-letters", "discard", second)
    await lists(api, whose, [third])
    many = await command(stack, "dead-letters", "redrive", "--tenant", whose, "--rate", "50")
    await lists(api, whose, [])

    assert {first, second, third} == {each["task_id"] for each in listed["dead_letters"]}
    assert all(task_id in table for task_id in (first, second, third))
    assert "disk full" in shown
    assert "3 dead letters match" in counted
    assert "0 dead letters match" in no_items
    assert f"Task {first} is redriven" in one
    assert f"Task {second} is discarded" in discarded
    assert "1 done" in many
    assert "completed" == (await end_of(api, first))["status"]
    assert "completed" == (await end_of(api, third))["status"]
    assert "failed" == (await end_of(api, second))["status"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "unknown"), 3, "orchestrator: Task 'unknown' is not among the dead letters"),
        (("redrive", "unknown"), 3, "Task 'unknown' is not among the dead letters"),
        (("discard", "unknown", "--reason", "y" * 501), 2, "reason"),
        (("--cursor", "nonsense"), 2, "cursor"),
    ],
)
async def test_the_command_line_says_in_one_line_what_is_wrong(
    stack: Stack, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """Without a traceback."""
    errors = await command(stack, "dead-letters", *arguments, code=code)
    assert words in errors
    assert "Traceback" not in errors
