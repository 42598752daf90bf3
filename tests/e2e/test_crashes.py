"""Parts that are killed or frozen: nothing that was accepted is lost, nothing is doubled."""

import asyncio
import signal
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from orchestrator.engine.embedded import STARTS_AT_ONCE
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import agent_config, eventually, running

pytestmark = pytest.mark.e2e

TASKS = 100
AT_ONCE = 20


def config(agent: Agent, **rules: Any) -> dict[str, Any]:
    """The agent's, with short timeouts of the engine's client."""
    return {**agent_config(agent.url, **rules), "temporal": {"rpc_timeout": 3}}


async def submit_many(api: httpx.AsyncClient, count: int) -> list[str]:
    """Submit tasks, alternately queued and inline; their ids."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        body = {"pattern": ("work", "fast")[number % 2], "payload": {"number": number}}
        key = {"Idempotency-Key": str(uuid.uuid4())}

        async def accepted() -> str | None:
            response = await api.post("/orchestrate", json=body, headers=key)
            assert response.status_code in {202, 503}, response.text
            return str(response.json()["task_id"]) if response.status_code == 202 else None

        async with turn:
            return str(await eventually(accepted, 120))

    return list(await asyncio.gather(*map(one, range(count))))


async def ends_of(api: httpx.AsyncClient, ids: list[str]) -> dict[str, dict[str, Any]]:
    """The final status of each task, asked patiently through restarts."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(task_id: str) -> dict[str, Any]:
        async def final() -> Any:
            async with turn:
                try:
                    response = await api.get(f"/status/{task_id}", headers={"Prefer": "wait=5"})
                except httpx.TransportError:
                    return None
            assert response.status_code in {200, 503}, response.text
            if response.status_code == 503:
                return None
            status = response.json()
            return status if status.get("status") in {"completed", "failed", "cancelled"} else None

        return dict(await eventually(final, 120, f"end of {task_id}"))

    return dict(zip(ids, await asyncio.gather(*map(one, ids)), strict=True))


async def called(agent: Agent, task_id: str) -> None:
    """Return when the task's first call is under way; health checks are calls as well."""

    async def under_way() -> bool:
        return bool(agent.calls_of(task_id))

    await eventually(under_way)


def slowly(_: Call) -> Reply:
    """Slow enough that some calls are in flight whenever something is killed."""
    return Reply(delay=0.3)


async def test_no_task_is_lost_when_worker_and_engine_are_killed(tmp_path: Path) -> None:
    """All accepted, then kill -9 of the worker and of the engine: all completed, final for good."""
    async with Agent(decide=slowly) as agent, running(tmp_path, config(agent)) as stack:
        async with stack.client() as api:
            ids = await submit_many(api, TASKS)
            await stack.kill("worker")
            await stack.kill("engine")

            ends = await ends_of(api, ids)
            again = await ends_of(api, ids)

        assert {"completed": TASKS} == Counter(end["status"] for end in ends.values())
        assert ends == again
        assert set(ids) <= {call.headers.get("Idempotency-Key") for call in agent.calls}
        assert stack.restarts() >= 2


async def test_no_task_is_lost_when_the_api_is_killed(tmp_path: Path) -> None:
    """The API runs workflows too; what it held goes on elsewhere, under the same ids."""
    async with Agent(decide=slowly) as agent, running(tmp_path, config(agent)) as stack:
        async with stack.client() as api:
            ids = await submit_many(api, 40)
            await stack.kill("api")

            ends = await ends_of(api, ids)

        assert {"completed": 40} == Counter(end["status"] for end in ends.values())


async def test_a_submission_cut_off_by_a_crash_exists_once_after_the_retry(tmp_path: Path) -> None:
    """The client repeats with its key until it is answered: one task, one call for each key."""
    async with Agent() as agent, running(tmp_path, config(agent)) as stack:
        keys = [str(uuid.uuid4()) for _ in range(30)]

        async def stubborn(key: str) -> str:
            body = {"pattern": "work", "payload": {"key": key}}

            async def answered() -> Any:
                try:
                    async with stack.client() as api:
                        response = await api.post(
                            "/orchestrate", json=body, headers={"Idempotency-Key": key}
                        )
                except httpx.TransportError:
                    return None
                assert response.status_code in {202, 503}
                return response.json()["task_id"] if response.status_code == 202 else None

            return str(await eventually(answered, 60))

        submissions = [asyncio.create_task(stubborn(key)) for key in keys]
        await agent.called()
        await stack.kill("api")
        ids = await asyncio.gather(*submissions)
        async with stack.client() as api:
            ends = await ends_of(api, list(ids))

        assert len(keys) == len(set(ids))
        assert {"completed": len(keys)} == Counter(end["status"] for end in ends.values())
        assert Counter(ids) == Counter(
            call.headers["Idempotency-Key"] for call in agent.calls if call.path == "/work"
        )


async def test_status_works_while_every_worker_is_down(tmp_path: Path) -> None:
    """The engine's record needs no worker; the reason for waiting is said."""
    async with Agent() as agent, running(tmp_path, config(agent)) as stack:
        async with stack.client() as api:
            stack.send("worker", signal.SIGSTOP)
            try:
                task_id = (
                    await api.post("/orchestrate", json={"pattern": "work", "payload": {}})
                ).json()["task_id"]
                status = (await api.get(f"/status/{task_id}")).json()
            finally:
                stack.send("worker", signal.SIGCONT)
            ends = await ends_of(api, [task_id])

        assert status["status"] in {"queued", "running"}
        assert "completed" == ends[task_id]["status"]


async def test_a_frozen_engine_is_503_within_the_deadline(tmp_path: Path) -> None:
    """No request hangs and none is lost: repeated with its key, each is one task."""
    async with Agent() as agent, running(tmp_path, config(agent)) as stack:
        async with stack.client() as api:
            known = (await submit_many(api, 1))[0]
            key = {"Idempotency-Key": str(uuid.uuid4())}
            body = {"pattern": "work", "payload": {}}
            stack.send("engine", signal.SIGSTOP)
            try:
                began = time.monotonic()
                frozen = await asyncio.gather(
                    api.post("/orchestrate", json=body, headers=key),
                    api.get(f"/status/{known}"),
                    api.get("/tasks"),
                )
                seconds = time.monotonic() - began
            finally:
                stack.send("engine", signal.SIGCONT)

            async def accepted() -> Any:
                response = await api.post("/orchestrate", json=body, headers=key)
                return response.json()["task_id"] if response.status_code == 202 else None

            task_id = await eventually(accepted, 60)
            ends = await ends_of(api, [known, task_id])

        assert {503} == {answer.status_code for answer in frozen}
        assert all("Retry-After" in answer.headers for answer in frozen)
        assert seconds < 30
        assert {"completed": 2} == Counter(end["status"] for end in ends.values())
        assert 1 == len(agent.calls_of(task_id))


async def test_more_submissions_than_a_frozen_engine_is_asked_for_are_503_too(
    tmp_path: Path,
) -> None:
    """Those that wait for their turn as well; repeated with its key, each is one task."""
    number = 5 * STARTS_AT_ONCE
    body = {"pattern": "work", "payload": {}}
    keys = [{"Idempotency-Key": str(uuid.uuid4())} for _ in range(number)]
    async with Agent() as agent, running(tmp_path, config(agent)) as stack:
        async with stack.client() as api:

            async def submit() -> list[httpx.Response]:
                posts = (api.post("/orchestrate", json=body, headers=key) for key in keys)
                return await asyncio.gather(*posts)

            stack.send("engine", signal.SIGSTOP)
            try:
                began = time.monotonic()
                frozen = await submit()
                seconds = time.monotonic() - began
            finally:
                stack.send("engine", signal.SIGCONT)

            async def accepted() -> Any:
                answers = await submit()
                assert {202, 503} >= {answer.status_code for answer in answers}
                ids = {answer.json().get("task_id") for answer in answers}
                return None if None in ids else ids

            ids = await eventually(accepted, 60)
            ends = await ends_of(api, list(ids))

        assert {503} == {answer.status_code for answer in frozen}
        assert all("Retry-After" in answer.headers for answer in frozen)
        assert seconds < 30
        assert {"completed": number} == Counter(end["status"] for end in ends.values())
        assert {1} == {len(agent.calls_of(each)) for each in ids}


async def test_waiting_for_a_task_in_vain_still_names_it(tmp_path: Path) -> None:
    """The engine freezes while a submission waits for its result: the task was accepted, 202."""
    async with (
        Agent(Reply(hang=True)) as agent,
        running(tmp_path, config(agent)) as stack,
        stack.client() as api,
    ):
        waiting = asyncio.create_task(submit_and_wait(api, 2))
        await eventually(lambda: _working(agent))
        stack.send("engine", signal.SIGSTOP)
        try:
            answer = await waiting
        finally:
            stack.send("engine", signal.SIGCONT)

    assert 202 == answer.status_code
    assert answer.json()["task_id"] in answer.headers["Location"]


async def test_who_waits_is_answered_when_the_product_stops(tmp_path: Path) -> None:
    """A long wait neither holds the stop up nor is cut off without an answer."""
    async with Agent(Reply(hang=True)) as agent:
        settings = {**agent_config(agent.url), "temporal": {"shutdown_grace": 2}}
        async with running(tmp_path, settings) as stack, stack.client() as api:
            waiting = asyncio.create_task(submit_and_wait(api, 60))
            await eventually(lambda: _working(agent))
            began = time.monotonic()
            code = await stack.stop()
            seconds = time.monotonic() - began
            answer = await waiting

    assert (0, 202, "running") == (code, answer.status_code, answer.json()["status"])
    assert seconds < 40


async def submit_and_wait(api: httpx.AsyncClient, seconds: int) -> httpx.Response:
    """Submit a task and prefer to wait for its end."""
    return await api.post(
        "/orchestrate",
        json={"pattern": "work", "payload": {}},
        headers={"Prefer": f"wait={seconds}"},
    )


async def test_a_worker_stopped_politely_finishes_its_calls(tmp_path: Path) -> None:
    """SIGTERM: the call in flight ends normally, with no second attempt."""
    async with Agent(Reply(delay=1.5)) as agent, running(tmp_path, config(agent)) as stack:
        async with stack.client() as api:
            task_id = (
                await api.post("/orchestrate", json={"pattern": "work", "payload": {}})
            ).json()["task_id"]

            await called(agent, task_id)
            stack.send("worker", signal.SIGTERM)
            ends = await ends_of(api, [task_id])

        assert ("completed", 1) == (ends[task_id]["status"], ends[task_id]["attempts"])
        assert 1 == len(agent.calls_of(task_id))


async def test_a_polite_restart_under_load_makes_each_call_once(tmp_path: Path) -> None:
    """Calls in flight finish, the others wait for the next worker; none is made twice."""
    async with Agent(Reply(delay=0.05)) as agent, running(tmp_path, config(agent)) as stack:
        async with stack.client() as api:
            submissions = asyncio.create_task(submit_many(api, 150))
            await eventually(lambda: _at_least(agent, 30))
            stack.send("worker", signal.SIGTERM)
            ends = await ends_of(api, await submissions)

        assert {"completed": 150} == Counter(end["status"] for end in ends.values())
        assert {1} == {len(agent.calls_of(task_id)) for task_id in ends}


async def _working(agent: Agent) -> bool:
    return any(call.path == "/work" for call in agent.calls)


async def _at_least(agent: Agent, calls: int) -> bool:
    return len(agent.calls) >= calls


async def test_a_call_that_outlasts_the_grace_goes_to_the_next_worker_at_once(
    tmp_path: Path,
) -> None:
    """It is cut off and tried again without waiting for a heartbeat to be missed."""
    async with Agent(decide=lambda call: Reply(hang=call.headers.get("X-Attempt") == "1")) as agent:
        settings = {**agent_config(agent.url), "temporal": {"shutdown_grace": 0.5}}
        async with running(tmp_path, settings) as stack, stack.client() as api:
            task_id = (await submit_many(api, 1))[0]
            await called(agent, task_id)
            stack.send("worker", signal.SIGTERM)
            ends = await ends_of(api, [task_id])
            engine = await Client.connect(stack.engine, namespace=stack.namespace)
            history = await engine.get_workflow_handle(task_id).fetch_history()

    assert ("completed", 2) == (ends[task_id]["status"], ends[task_id]["attempts"])
    failures = [
        event.activity_task_started_event_attributes.last_failure
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert [False] == [failure.HasField("timeout_failure_info") for failure in failures]


async def test_the_engine_keeps_its_tasks_over_a_restart_of_everything(tmp_path: Path) -> None:
    """Stop politely, start again on the same data: old results are there, and open tasks go on."""
    async with Agent(Reply(status=503, headers={"Retry-After": "3"}), Reply()) as agent:
        async with running(tmp_path, config(agent)) as stack:
            async with stack.client() as api:
                task_id = (await submit_many(api, 1))[0]
                await called(agent, task_id)
            assert 0 == await stack.stop()
            await stack.start()
            async with stack.client() as api:
                ends = await ends_of(api, [task_id])
            assert 0 == await stack.stop(signal.SIGTERM)

        assert ("completed", 2) == (ends[task_id]["status"], ends[task_id]["attempts"])
        assert "" == stack.complained()
