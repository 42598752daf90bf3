"""What is refused before it starts, what is metered, and what goes first."""

import asyncio
import contextlib
import itertools
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.admission_stage import (
    LIMITED,
    MAX_QUEUE,
    METERED_BURST,
    METERED_RATE,
    NARROW,
    WAIT,
    assert_problem,
    complete,
    config,
    post,
    refusals,
    rehearse,
)
from tests.support.agents import Agent, Reply
from tests.support.redis import redis_server
from tests.support.stack import BIN, Stack, eventually, free_port, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[dict[str, Agent]]:
    """An agent for each name, so that no test meets the calls of another."""
    names = (*LIMITED, *NARROW, "metered", "away", "free", "spare")
    async with contextlib.AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(Agent()) for name in names}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    agents: dict[str, Agent], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product."""
    async with running(tmp_path_factory.mktemp("stack"), config(agents)) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the product."""
    async with stack.client() as client:
        yield client


async def test_an_agents_limit_is_kept_at_admission(
    api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """Two are accepted, the third gets 429; each answer says what is left."""
    first, second, third = [await post(api, "limited") for _ in range(3)]
    await complete(api, first.json()["task_id"], second.json()["task_id"])

    assert [202, 202] == [first.status_code, second.status_code]
    assert_problem(third, 429, "Rate limit exceeded for agent 'limited'")
    assert ["1", "0", "0"] == [
        each.headers["ratelimit-remaining"] for each in (first, second, third)
    ]
    assert 90 < int(third.headers["retry-after"]) <= 100
    assert third.headers["retry-after"] == third.headers["ratelimit-reset"]
    assert '"limited";q=1;w=100' == third.headers["ratelimit-policy"]
    assert f'"limited";r=0;t={third.headers["retry-after"]}' == third.headers["ratelimit"]
    assert 2 == len(agents["limited"].calls_of(first.json()["task_id"])) + len(
        agents["limited"].calls_of(second.json()["task_id"])
    )


async def test_a_repeated_request_costs_no_token(api: httpx.AsyncClient) -> None:
    """Nor is it refused when there is none."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = await post(api, "replayed", key)
    again = [await post(api, "replayed", key) for _ in range(3)]
    other = await post(api, "replayed")
    refused = await post(api, "replayed")
    late = await post(api, "replayed", key)
    changed = await post(api, "replayed", key, priority=5)
    unknown = await post(api, "replayed", {"Idempotency-Key": str(uuid.uuid4())})

    assert [202] * 3 == [each.status_code for each in again]
    assert (202, "0") == (other.status_code, other.headers["ratelimit-remaining"])
    assert (429, 202, first.text) == (refused.status_code, late.status_code, late.text)
    assert "true" == late.headers["idempotency-replayed"]
    assert [422, 429] == [changed.status_code, unknown.status_code]


async def test_a_dry_run_shows_the_plan_and_starts_nothing(
    api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """Nor does it take a token; when there is none it says so."""
    before = [await rehearse(api, "rehearsed") for _ in range(3)]
    accepted = [await post(api, "rehearsed") for _ in range(2)]
    await complete(api, *(each.json()["task_id"] for each in accepted))
    after = (await rehearse(api, "rehearsed")).json()
    calls = [call for call in agents["rehearsed"].calls if call.path == "/work"]

    assert [200] * 3 == [each.status_code for each in before]
    plan, admission = before[0].json()["plan"], before[0].json()["admission"]
    assert ("rehearsed", "/work", "queued", 3, 30.0, "exact pattern rehearsed") == (
        plan["agent"],
        plan["endpoint"],
        plan["dispatch"],
        plan["priority"],
        plan["attempt_timeout"],
        plan["chosen_by"],
    )
    assert {"deadline", "retry", "fallbacks"} <= set(plan)
    assert (True, 202) == (admission["admitted"], admission["status_code"])
    assert [202, 202] == [each.status_code for each in accepted]
    refusal = after["admission"]
    assert (False, 429) == (refusal["admitted"], refusal["status_code"])
    assert "Rate limit exceeded for agent 'rehearsed'" == refusal["detail"]
    assert 90 < refusal["retry_after"] <= 100
    assert 2 == len(calls)


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("true", {"pattern": "nobody's", "payload": {}}, 400),
        ("true", {"pattern": "free"}, 422),
        ("perhaps", {"pattern": "free", "payload": {}}, 422),
    ],
)
async def test_a_dry_run_finds_the_same_mistakes(
    api: httpx.AsyncClient, query: str, body: dict[str, Any], status: int
) -> None:
    """As a submission would."""
    response = await api.post(f"/orchestrate?dry_run={query}", json=body)
    assert (status, status) == (response.status_code, response.json()["status_code"])


async def test_an_unavailable_agent_is_refused(api: httpx.AsyncClient, stack: Stack) -> None:
    """But not the answer of a task that was accepted before, nor a task that has a fallback."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    accepted = await post(api, "away", key)
    await complete(api, accepted.json()["task_id"])
    tripped = await api.post("/agents/away/trip", json={"reason": "maintenance"})

    async def known(each: httpx.AsyncClient) -> bool:
        return bool((await rehearse(each, "away")).json()["admission"]["status_code"] == 503)

    await stack.everywhere(known, "the refusal")
    before = await refusals(stack, "away")
    refused = await post(api, "away")
    rehearsed = (await rehearse(api, "away")).json()["admission"]
    replayed = await post(api, "away", key)
    fallen_back = await post(api, "with fallback")
    await complete(api, fallen_back.json()["task_id"])
    status = (await api.get(f"/status/{fallen_back.json()['task_id']}")).json()
    after = await refusals(stack, "away")

    assert tripped.is_success
    assert_problem(refused, 503, "Agent 'away' is currently unavailable")
    assert (503, refused.json()["detail"]) == (rehearsed["status_code"], rehearsed["detail"])
    assert (202, accepted.text) == (replayed.status_code, replayed.text)
    assert ("spare", "exact pattern with fallback; fallback, away being unavailable") == (
        status["agent"],
        status["chosen_by"],
    )
    assert {"agent_unavailable": before.get("agent_unavailable", 0) + 1} == after


async def test_operators_give_an_agent_a_limit(api: httpx.AsyncClient, stack: Stack) -> None:
    """At run time, and take it away again."""

    async def limits(each: httpx.AsyncClient) -> bool:
        return bool((await each.get("/agents/free")).json()["limits"]["set_at_run_time"])

    async def limits_not(each: httpx.AsyncClient) -> bool:
        return not await limits(each)

    accepted = [await post(api, "free") for _ in range(3)]
    limited = await api.post("/agents/free/limit", json={"rate": 0.6, "burst": 1})
    await stack.everywhere(limits, "the limit")
    with_limit = [(await post(api, "free")).status_code for _ in range(2)]
    await api.post("/agents/free/limit", json={"clear": True})
    await stack.everywhere(limits_not, "no limit")
    without = await post(api, "free")

    assert limited.is_success
    assert [202] * 3 == [each.status_code for each in accepted]
    assert [202, 429] == with_limit
    assert 202 == without.status_code
    assert "1" != without.headers.get("ratelimit-limit")


async def test_the_queue_is_bounded(
    stack: Stack, api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """As many wait as may, and everybody can see which; when they have gone there is room."""
    narrow, called = agents["narrow"], len(stack.pids_of("worker"))
    narrow.script(Reply(hang=True))
    answers = await asyncio.gather(*(post(api, "narrow", priority=4) for _ in range(MAX_QUEUE + 8)))
    accepted = [each.json()["task_id"] for each in answers if each.status_code == 202]
    refused = [each for each in answers if each.status_code != 202]
    while (answer := await post(api, "narrow", priority=4)).status_code == 202:
        accepted.append(answer.json()["task_id"])
        assert len(accepted) < 3 * MAX_QUEUE
    refused.append(answer)

    async def shown(each: httpx.AsyncClient) -> bool:
        health = (await each.get("/health")).json()
        return bool(
            health["queues"] == {"narrow": {"priority_4": len(accepted) - called}}
            and health["queue_size"] == len(accepted) - called
        )

    await stack.everywhere(shown, "queues in /health")
    rehearsed = (await rehearse(api, "narrow")).json()["admission"]
    numbers = (await api.get("/metrics")).json()["agent_queue_sizes"]
    text = await api.get("/metrics", headers={"Accept": "text/plain"})
    narrow.release()
    await complete(api, *accepted)

    async def room() -> bool:
        return (await post(api, "narrow")).status_code == 202

    await eventually(room, what="room in the queue")

    # One is called by each worker, the others wait; APIs know late what others have let in.
    assert MAX_QUEUE <= len(accepted) - called <= MAX_QUEUE * len(stack.apis) + 1
    for each in refused:
        assert_problem(each, 503, "Queue is full")
    assert (503, "Queue is full") == (rehearsed["status_code"], rehearsed["detail"])
    expected = {f"priority_{level}": 0 for level in range(1, 6)}
    assert expected == numbers["free"]
    assert expected | {"priority_4": len(accepted) - called} == numbers["narrow"]
    samples = {
        (sample.labels["agent"], sample.labels["priority"]): sample.value
        for family in text_string_to_metric_families(text.text)
        for sample in family.samples
        if sample.name == "orchestrator_agent_queue_size"
    }
    assert (len(accepted) - called, 0) == (samples["narrow", "4"], samples["free", "4"])


async def test_short_tasks_do_not_fill_the_queue(api: httpx.AsyncClient) -> None:
    """Many more than it holds are accepted, since none of them waits."""
    for _ in range(3):
        answers = await asyncio.gather(*(post(api, "free", WAIT) for _ in range(MAX_QUEUE // 2)))
        assert {200} == {each.status_code for each in answers}


async def test_a_metered_agent_refuses_nobody_and_is_not_overrun(
    api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """Its calls in any time are within burst + rate * time + 10 %, also those of an inline rule."""
    metered = agents["metered"]
    ids = []
    for _ in range(2):
        answers = await asyncio.gather(*(post(api, "metered") for _ in range(25)))
        assert {202} == {each.status_code for each in answers}
        ids += [each.json()["task_id"] for each in answers]
        await complete(api, *ids)

    times = sorted(metered.calls_of(task_id)[0].at for task_id in ids)
    rate = METERED_RATE / 60
    for first, last in itertools.combinations(range(len(times)), 2):
        most = METERED_BURST + rate * (times[last] - times[first])
        assert last - first + 1 <= 1.1 * most
    assert times[-1] - times[0] > (len(times) - METERED_BURST) / rate / 1.1


async def test_a_queued_task_can_be_called_first(
    stack: Stack, api: httpx.AsyncClient, agents: dict[str, Agent]
) -> None:
    """Its new priority is shown, and its call goes out before the others that wait."""
    ordered, workers = agents["ordered"], len(stack.pids_of("worker"))
    ordered.script(Reply(hang=True))
    first = [(await post(api, "ordered")).json()["task_id"] for _ in range(workers)]

    async def called() -> bool:
        return all(map(ordered.calls_of, first))

    await eventually(called, what="a call by each worker")
    waiting: list[str] = []

    async def in_queue() -> bool:
        queues = (await api.get("/health")).json()["queues"]
        return bool(queues.get("ordered") == {"priority_2": len(waiting)})

    while len(waiting) < 3:  # one after another: equal calls go out in the order they came to wait
        waiting.append((await post(api, "ordered", priority=2)).json()["task_id"])
        await eventually(in_queue, what="the task among those that wait")
    last = waiting[-1]
    changed = await api.post(f"/tasks/{last}/priority", json={"priority": 5})

    async def shown() -> bool:
        status = (await api.get(f"/status/{last}")).json()
        listed = (await api.get("/tasks", params={"agent": "ordered", "priority": 5})).json()
        return bool(status["priority"] == 5 and [last] == [t["task_id"] for t in listed["tasks"]])

    async def moved() -> bool:
        queues = (await api.get("/health")).json()["queues"]
        return bool(queues["ordered"].get("priority_5") == 1)

    await eventually(shown, what="the new priority")
    await eventually(moved, what="the call among the urgent ones")
    ordered.release()
    await complete(api, *first, *waiting)
    ended = await api.post(f"/tasks/{last}/priority", json={"priority": 1})
    order = [call.headers["X-Task-ID"] for call in ordered.calls if call.path == "/work"]

    assert (202, last, 5) == (
        changed.status_code,
        changed.json()["task_id"],
        changed.json()["priority"],
    )
    assert set(first) == set(order[:workers])
    assert last in order[workers : 2 * workers]
    assert waiting[:-1] == [each for each in order[workers:] if each != last]
    assert (409, f"Task '{last}' has ended: it is completed") == (
        ended.status_code,
        ended.json()["detail"],
    )


@pytest.mark.parametrize(
    ("task_id", "body", "status"),
    [
        ("never-heard-of-it", {"priority": 5}, 404),
        ("never-heard-of-it", {"priority": 6}, 422),
        ("never-heard-of-it", {}, 422),
    ],
)
async def test_a_wrong_change_of_priority_is_told(
    api: httpx.AsyncClient, task_id: str, body: dict[str, Any], status: int
) -> None:
    """As a problem document."""
    response = await api.post(f"/tasks/{task_id}/priority", json=body)
    assert (status, status) == (response.status_code, response.json()["status_code"])


@contextlib.asynccontextmanager
async def further_api(stack: Stack, redis: str) -> AsyncIterator[httpx.AsyncClient]:
    """One more API process on the same engine, which shares its limits."""
    port = free_port()
    variables = {
        **stack.variables(),
        "ORCHESTRATOR_TEMPORAL__ADDRESS": stack.engine,
        "ORCHESTRATOR_MONITORING__ENABLE_METRICS": "false",
        "ORCHESTRATOR_RATE_LIMITING__REDIS": redis,
    }
    with Path(os.devnull).open("wb") as nothing:  # noqa: ASYNC230 - a device
        process = await asyncio.create_subprocess_exec(
            *(str(BIN / "orchestrator"), "api", "--port", str(port)),
            env=variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=nothing,
            stderr=nothing,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            async def up() -> bool:
                assert process.returncode is None
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/health")).is_success
                return False

            await eventually(up, 60, "a further API process")
            yield client
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(60):
            await process.wait()


async def test_api_processes_share_a_limit(stack: Stack, tmp_path: Path) -> None:
    """By Redis: two processes together accept what one would."""
    with redis_server(tmp_path) as redis:
        async with further_api(stack, redis.url) as one, further_api(stack, redis.url) as other:
            answers = [await post(each, "shared") for each in (one, other, one, other)]

    assert [202, 202, 429, 429] == [each.status_code for each in answers]
    assert ["1", "0", "0", "0"] == [each.headers["ratelimit-remaining"] for each in answers]
