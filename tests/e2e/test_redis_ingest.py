"""Tasks from a Redis stream: each entry becomes one task, whatever the broker goes through."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.support.agents import Agent
from tests.support.redis import RedisServer, redis_server
from tests.support.stack import Stack, agent_config, eventually, running

pytestmark = [pytest.mark.measured, pytest.mark.e2e]

QUEUE, DEAD, GROUP = "orchestrator.tasks", "orchestrator.tasks.dead", "orchestrator"
STREAM = 300


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The broker of the module, which keeps each write."""
    with redis_server(tmp_path_factory.mktemp("redis"), durable=True) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """Answers at once."""
    async with Agent() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    broker: RedisServer, agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product, which takes tasks from the broker."""
    config = agent_config(agent.url)
    config["message_queue"] = {
        "type": "redis",
        "host": "127.0.0.1",
        "port": broker.port,
        "reclaim_after": 2,
        "delivery_limit": 3,
    }
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis(broker: RedisServer) -> AsyncIterator[Redis]:
    """A client of the broker."""
    async with Redis.from_url(broker.url, socket_timeout=20) as client:
        yield client


def task(number: Any, **changes: Any) -> str:
    """A task as the body of an entry."""
    return json.dumps({"pattern": "work", "payload": {"number": number}, **changes})


async def called(agent: Agent, numbers: set[Any]) -> Counter[Any]:
    """How often the agent was called with each number, once all were."""

    async def all_called() -> bool:
        return numbers <= {call.body["number"] for call in agent.work()}

    await eventually(all_called, 90, "all calls")
    counts = Counter(call.body["number"] for call in agent.work())
    return Counter({number: counts[number] for number in numbers})


async def emptied(redis: Redis) -> None:
    """Wait until everything was settled."""

    async def empty() -> bool:
        pending = await redis.xpending(QUEUE, GROUP)
        return await redis.xlen(QUEUE) == 0 and int(pending["pending"]) == 0

    await eventually(empty, what="an empty stream")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_through_a_killed_broker_is_one_task_an_entry(
    broker: RedisServer, agent: Agent, stack: Stack, redis: Redis
) -> None:
    """Kill -9 in their midst, a restart on its data: each is one task with one call."""

    async def add(number: int) -> None:
        async def added() -> bool:
            try:
                await redis.xadd(QUEUE, {"body": task(number), "message_id": f"s-{number}"})
            except (RedisError, OSError):
                await asyncio.sleep(0.1)
                return False
            return True

        await eventually(added, 60)

    for number in range(STREAM):
        if number == STREAM // 2:
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
        await add(number)
    assert {1} == set((await called(agent, set(range(STREAM)))).values())
    await emptied(redis)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_same_message_starts_nothing_new(
    agent: Agent, stack: Stack, redis: Redis
) -> None:
    """Added three times under one id, and asked for by HTTP with that key: one call."""
    for _ in range(3):
        await redis.xadd(QUEUE, {"body": task("twice"), "message_id": "twice"})
    await emptied(redis)
    async with stack.client() as api:
        answer = await api.post(
            "/orchestrate",
            content=task("twice"),
            headers={"Idempotency-Key": "twice", "Content-Type": "application/json"},
        )
        assert "true" == answer.headers["Idempotency-Replayed"]
    assert {"twice": 1} == await called(agent, {"twice"})


@pytest.mark.asyncio(loop_scope="module")
async def test_an_entry_without_an_id_goes_by_its_place(
    agent: Agent, stack: Stack, redis: Redis
) -> None:
    """Two of the same body are two tasks."""
    for _ in range(2):
        await redis.xadd(QUEUE, {"body": task("no id")})
    await emptied(redis)

    async def two() -> bool:
        return (await called(agent, {"no id"}))["no id"] == 2

    await eventually(two)


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"body": "not JSON"}, "422", "not JSON"),
        ({"payload": "{}"}, "422", "The body is"),
        ({"body": task(1, pattern="wrok")}, "400", "Unknown pattern"),
        ({"body": task(1, priority=9)}, "422", "priority"),
        ({"body": b"\xff\xfe", "message_id": b"\xff"}, "422", "not JSON"),
    ],
    ids=["text", "no-body", "pattern", "priority", "bytes"],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_can_never_be_a_task_is_a_dead_letter_with_its_reason(
    stack: Stack, redis: Redis, fields: dict[Any, Any], status: str, words: str
) -> None:
    """Its fields unchanged, with why; and its sender is answered."""
    await redis.delete(DEAD, "answers")
    await redis.xadd(QUEUE, {**fields, "reply_to": "answers", "correlation_id": "c-1"})

    async def buried() -> Any:
        return await redis.xrange(DEAD)

    [(_, dead)] = await eventually(buried)
    assert status == dead[b"x-status"].decode()
    assert words in dead[b"x-error"].decode()
    assert dead.get(b"body") == (
        fields["body"].encode() if isinstance(fields.get("body"), str) else fields.get("body")
    )
    answers: Any = await redis.xrange("answers")
    [(_, answer)] = answers
    assert b"c-1" == answer[b"correlation_id"]
    assert int(status) == json.loads(answer[b"body"])["status_code"]
    await emptied(redis)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_dead_consumer_held_is_taken_over(
    agent: Agent, stack: Stack, redis: Redis
) -> None:
    """Once it has been held for long; what was handed out too often is a dead letter instead."""
    await redis.delete(DEAD)
    # In one step, before the product can read it.
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xadd(QUEUE, {"body": task("left"), "message_id": "left"})
        pipe.xreadgroup(GROUP, "gone", {QUEUE: ">"}, 1)
        pipe.xadd(QUEUE, {"body": task("poison"), "message_id": "poison"})
        pipe.xreadgroup(GROUP, "gone", {QUEUE: ">"}, 1)
        *_, found = await pipe.execute()
    entry = next(iter(found.values()))[0][0][0] if isinstance(found, dict) else found[0][1][0][0]
    await redis.xclaim(QUEUE, GROUP, "gone", 0, [entry], retrycount=3)

    assert {"left": 1} == await called(agent, {"left"})

    async def buried() -> Any:
        return await redis.xrange(DEAD)

    [(_, dead)] = await eventually(buried)
    assert b"poison" == dead[b"message_id"]
    assert "handed out 3 times" in dead[b"x-error"].decode()
    assert not [call for call in agent.work() if call.body["number"] == "poison"]


@pytest.mark.asyncio(loop_scope="module")
async def test_events_are_heard_and_replies_wait_in_their_stream(
    stack: Stack, redis: Redis
) -> None:
    """By a pattern of channels: the task's course; the reply keeps its correlation id."""
    async with redis.pubsub() as heard:
        await heard.psubscribe("orchestrator.events.task.*")
        fields: dict[Any, Any] = {"body": task("told"), "message_id": "told", "reply_to": "told"}
        await redis.xadd(QUEUE, {**fields, "correlation_id": "c-7"})
        told = dict[str, str]()

        async def completed() -> bool:
            message = await heard.get_message(ignore_subscribe_messages=True, timeout=1)
            if message:
                event = json.loads(message["data"])
                told[event["type"]] = message["channel"].decode()
            return {"task.queued", "task.started", "task.completed"} <= set(told)

        await eventually(completed, what="the three events")
    assert "orchestrator.events.task.completed.test_agent" == told["task.completed"]

    async def answered() -> Any:
        return await redis.xrange("told")

    [(_, answer)] = await eventually(answered)
    assert b"c-7" == answer[b"correlation_id"]
    assert "completed" == json.loads(answer[b"body"])["status"]


@pytest.mark.asyncio(loop_scope="module")
async def test_entries_wait_while_the_api_is_down(agent: Agent, stack: Stack, redis: Redis) -> None:
    """Killed with entries in hand, they are taken over by the next process: one call each."""
    for number in range(60):
        await redis.xadd(QUEUE, {"body": task(f"k{number}"), "message_id": f"k{number}"})
    await stack.kill("api")
    assert {1} == set((await called(agent, {f"k{number}" for number in range(60)})).values())
    await emptied(redis)
