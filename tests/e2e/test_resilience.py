"""Agents fail, tasks do not: breakers, parking, fallbacks, dead letters, by the running product."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.agents import Agent, Call, Reply
from tests.support.stack import Stack, eventually, running

pytestmark = pytest.mark.e2e

PERMITS = 2
OPEN_SECONDS = 2
SLOW_START = 2
AT_ONCE = 20


def config(*agents: Agent, rule: dict[str, Any] | None = None, **blocks: Any) -> dict[str, Any]:
    """One agent with an instance at each of the test agents; breakers that act within seconds."""
    recovery = {
        "retry_delay": 0.2,
        "circuit_breaker_threshold": 3,
        "circuit_breaker_timeout": OPEN_SECONDS,
        "circuit_breaker": {"half_open_permits": PERMITS, "open_backoff": 1},
        **blocks.pop("error_recovery", {}),
    }
    return {
        "agents": {"test_agent": {"instances": [{"url": agent.url} for agent in agents]}},
        "routing_rules": [
            {"pattern": "work", "target_agent": "test_agent", "endpoint": "/work", **(rule or {})}
        ],
        "load_balancing": {"slow_start": SLOW_START, "max_connections_per_agent": 20},
        "error_recovery": recovery,
        **blocks,
    }


@asynccontextmanager
async def agents(count: int) -> AsyncIterator[Sequence[Agent]]:
    """So many agents."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Agent()) for _ in range(count)]


async def submitted(api: httpx.AsyncClient, count: int, **fields: Any) -> list[str]:
    """Submit tasks, all of which must be accepted; their ids."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        body = {"pattern": "work", "payload": {"number": number}, **fields}
        key = {"Idempotency-Key": str(uuid.uuid4())}

        async def accepted() -> str | None:
            response = await api.post("/orchestrate", json=body, headers=key)
            if response.status_code == 503 and "engine" in response.json()["detail"]:
                return None
            assert 202 == response.status_code, response.text
            return str(response.json()["task_id"])

        async with turn:
            return str(await eventually(accepted, 120))

    return list(await asyncio.gather(*map(one, range(count))))


async def ends(api: httpx.AsyncClient, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The final status of each task."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(task_id: str) -> dict[str, Any]:
        async def final() -> Any:
            async with turn:
                response = await api.get(f"/status/{task_id}", headers={"Prefer": "wait=5"})
            status = response.json()
            return status if status["status"] in {"completed", "failed", "cancelled"} else None

        return dict(await eventually(final, 120, f"end of {task_id}"))

    return list(await asyncio.gather(*map(one, ids)))


def down(_: Call) -> Reply:
    """Break every connection."""
    return Reply(reset=True)


async def shut(stack: Stack) -> None:
    """Wait until the agent is refused at admission, which needs every breaker open."""

    async def refused(api: httpx.AsyncClient) -> bool:
        response = await api.post(
            "/orchestrate?dry_run=true", json={"pattern": "work", "payload": {}}
        )
        return bool(response.json()["admission"]["status_code"] == 503)

    await stack.everywhere(refused, f"open breakers; {stack.said()[-2000:]}")


async def test_a_broken_instance_gets_trials_only_and_no_task_fails(tmp_path: Path) -> None:
    """Of three instances one fails every call: all tasks complete, it sees its permits only."""
    async with agents(3) as three:
        bad = three[0]
        bad.behave(lambda call: Reply(status=500 if call.path == "/work" else 200))
        async with running(tmp_path, config(*three)) as stack, stack.client() as api:
            ids = await submitted(api, 50)
            await ends(api, ids)
            before = len(bad.work())
            started = asyncio.get_running_loop().time()
            statuses = await ends(api, ids + await submitted(api, 150))
            seconds = asyncio.get_running_loop().time() - started

    assert {"completed"} == {status["status"] for status in statuses}
    assert before >= 3
    rounds = seconds // OPEN_SECONDS + 1
    assert len(bad.work()) - before <= PERMITS * rounds


async def test_an_outage_of_all_instances_costs_no_task(tmp_path: Path) -> None:
    """Tasks accepted before it wait it out; what comes back is not overrun."""
    async with agents(2) as both:
        for agent in both:
            agent.behave(lambda _: Reply(delay=0.5))
        async with running(tmp_path, config(*both)) as stack, stack.client() as api:
            workers = len(stack.pids_of("worker"))
            ids = await submitted(api, 100)
            for agent in both:
                agent.behave(down)
            await shut(stack)
            refused = await api.post("/orchestrate", json={"pattern": "work", "payload": {}})
            waiting = (await api.get(f"/status/{ids[-1]}")).json()
            loop = asyncio.get_running_loop()
            seen = [len(agent.work()) for agent in both]
            began = loop.time()
            await asyncio.sleep(4 * OPEN_SECONDS)  # the outage itself
            trials = [len(agent.work()) - n for agent, n in zip(both, seen, strict=True)]
            rounds = (loop.time() - began) // OPEN_SECONDS + 1
            for agent in both:
                agent.most_at_once = 0
                agent.behave(lambda _: Reply(delay=0.1))
            began = loop.time()

            async def first_answer() -> bool:
                return any(call.answered.is_set() and call.at > began for call in both[0].work())

            await eventually(first_answer, 30, "trial call")
            at_first = both[0].most_at_once
            statuses = await ends(api, ids)
            dead = (await api.get("/dead-letters")).json()["dead_letters"]

    assert 503 == refused.status_code
    assert "Agent 'test_agent' is currently unavailable" == refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert ("queued", "breaker") == (waiting["status"], waiting["blocked_by"])
    assert {"completed"} == {status["status"] for status in statuses}
    assert [] == dead
    # Each worker has a breaker of its own.
    assert max(trials) <= PERMITS * rounds * workers
    assert at_first <= PERMITS * workers


async def test_a_backlog_goes_out_most_urgent_first_when_the_agent_is_back(tmp_path: Path) -> None:
    """What waited at a breaker is ordered by priority, not by who asks first."""
    async with Agent() as agent:
        agent.behave(down)
        async with (
            running(tmp_path, config(agent, error_recovery={"when_unavailable": "queue"})) as stack,
            stack.client() as api,
        ):
            await submitted(api, 3)
            await shut_by_status(api)
            low = await submitted(api, 10, priority=1)
            high = await submitted(api, 10, priority=5)
            agent.calls.clear()
            agent.behave(lambda _: Reply())
            await ends(api, low + high)
            order = [str(call.headers["Idempotency-Key"]) for call in agent.work()]

    last_high = max(order.index(task_id) for task_id in high)
    before_it = [task_id for task_id in order[:last_high] if task_id in low]
    # A call that is under way when the urgent ones come may be of any priority.
    assert len(before_it) <= PERMITS


async def shut_by_status(api: httpx.AsyncClient) -> None:
    """Wait until the agent's breakers are open, by the numbers."""

    async def is_open() -> bool:
        return bool((await api.get("/metrics")).json()["agents_status"]["test_agent"] == "open")

    await eventually(is_open, 30, "open breaker")


async def test_a_fallback_takes_over_and_a_non_idempotent_agent_is_called_once(
    tmp_path: Path,
) -> None:
    """The next agent is called when the first has used up its attempts; never after a maybe."""
    async with agents(2) as (first, second):
        first.behave(lambda call: Reply(status=500 if call.path == "/work" else 200))
        made = config(first, rule={"fallback_agents": ["backup"]})
        made["error_recovery"]["max_retries"] = 1
        made["error_recovery"]["circuit_breaker_threshold"] = 100
        made["agents"]["backup"] = {"instances": [{"url": second.url}]}
        made["agents"]["once"] = {"instances": [{"url": first.url}], "idempotent": False}
        made["routing_rules"].append(
            {"pattern": "pay", "target_agent": "once", "endpoint": "/work", "dispatch": "inline"}
        )
        async with running(tmp_path, made) as stack, stack.client() as api:
            [fell_back] = await ends(api, await submitted(api, 1))
            [paid] = await ends(api, await submitted(api, 1, pattern="pay"))

    assert ("completed", "backup") == (fell_back["status"], fell_back["agent"])
    outcomes = [(each["agent"], each["outcome"]) for each in fell_back["attempt_history"]]
    failed = ("test_agent", "AgentFailed")
    assert [failed, failed, ("backup", "success")] == outcomes
    assert ("failed", "OutcomeUnknown") == (paid["status"], paid["error_type"])
    assert 1 == len(first.calls_of(paid["task_id"]))


async def test_a_task_that_kills_its_worker_is_bounded(tmp_path: Path) -> None:
    """Each time that its call begins the worker is killed: it ends, and others are served."""
    async with Agent() as agent:
        made = config(agent, error_recovery={"max_retries": 1})
        async with running(tmp_path, made) as stack, stack.client() as api:
            loop = asyncio.get_running_loop()
            killing: list[asyncio.Task[None]] = []

            def poison(call: Call) -> Reply:
                if call.path == "/work" and call.body == {"poison": True}:
                    killing.append(loop.create_task(stack.kill("worker")))
                    return Reply(hang=True)
                return Reply()

            agent.behave(poison)
            [poisoned] = await submitted(api, 1, payload={"poison": True})
            [end] = await ends(api, [poisoned])
            [other] = await ends(api, await submitted(api, 1))
            await asyncio.gather(*killing)
            letters = (await api.get("/dead-letters")).json()["dead_letters"]
            agent.release()

    assert ("failed", "WorkerLost", 2) == (end["status"], end["error_type"], end["attempts"])
    assert 2 == len(agent.calls_of(poisoned))
    assert "completed" == other["status"]
    assert [poisoned] == [letter["task_id"] for letter in letters]


async def test_a_lost_worker_makes_nobody_repeat_what_must_not_be_repeated(
    tmp_path: Path,
) -> None:
    """An agent that is not idempotent is called once, and no fallback does its work again."""
    async with agents(2) as (first, second):
        first.behave(lambda call: Reply(hang=call.path == "/work"))
        made = config(first, rule={"fallback_agents": ["backup"]})
        made["agents"]["test_agent"]["idempotent"] = False
        made["agents"]["backup"] = {"instances": [{"url": second.url}]}
        async with running(tmp_path, made) as stack, stack.client() as api:
            [task_id] = await submitted(api, 1)
            await eventually(lambda: _worked(first), 20, "a call")
            await stack.kill("worker")
            [end] = await ends(api, [task_id])
            first.release()

    assert ("failed", "OutcomeUnknown", True) == (
        end["status"],
        end["error_type"],
        end.get("dead_letter"),
    )
    assert ([task_id], []) == (
        [call.headers["Idempotency-Key"] for call in first.work()],
        second.work(),
    )


async def _worked(agent: Agent) -> bool:
    return bool(agent.work())
