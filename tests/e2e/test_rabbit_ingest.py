"""Tasks from RabbitMQ: each message becomes one task, whatever the broker goes through."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from tests.support.agents import Agent, Reply
from tests.support.rabbit import RabbitServer, rabbit_server, send
from tests.support.stack import Stack, agent_config, eventually, running

pytestmark = pytest.mark.e2e

QUEUE, DEAD = "orchestrator.tasks", "orchestrator.tasks.dead"
STREAM = 400
AT_ONCE = 40


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """The broker of the module; a test may kill it, and starts it again."""
    with rabbit_server(tmp_path_factory.mktemp("rabbit")) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[Agent]:
    """Answers at once."""
    async with Agent() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    broker: RabbitServer, agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product, which takes tasks from the broker."""
    config = agent_config(agent.url)
    config["message_queue"] = {
        "type": "rabbitmq",
        "host": "127.0.0.1",
        "port": broker.port,
        "events": False,
    }
    config["agents"]["slow_agent"] = {
        "instances": [{"url": agent.url}],
        "rate_limit": {"rate": 30, "burst": 1},
    }
    config["routing_rules"].append(
        {"pattern": "slow", "target_agent": "slow_agent", "endpoint": "/slow"}
    )
    async with running(tmp_path_factory.mktemp("stack"), config) as started:
        yield started


def task(number: Any, **changes: Any) -> bytes:
    """A task as the body of a message."""
    return json.dumps({"pattern": "work", "payload": {"number": number}, **changes}).encode()


async def depth(channel: AbstractChannel, name: str) -> int:
    """How many messages wait in a queue."""
    queue = await channel.declare_queue(name, passive=True)
    return int(queue.declaration_result.message_count or 0)


async def next_of(channel: AbstractChannel, name: str) -> AbstractIncomingMessage:
    """The next message of a queue, acknowledged."""
    queue = await channel.get_queue(name)

    async def got() -> AbstractIncomingMessage | None:
        return await queue.get(fail=False)

    message: AbstractIncomingMessage = await eventually(got, what=f"a message in {name}")
    await message.ack()
    return message


async def replayed(api: httpx.AsyncClient, key: str, body: bytes) -> dict[str, Any]:
    """The task of a message, as HTTP finds it by the same key, once it is there."""

    async def found() -> dict[str, Any] | None:
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        answer = await api.post("/orchestrate", content=body, headers=headers)
        return dict(answer.json()) if answer.headers.get("Idempotency-Replayed") else None

    return dict(await eventually(found, what=f"task of message {key}"))


async def stream(broker: RabbitServer, count: int) -> None:
    """Publish the messages as a patient sender does: what was not confirmed is sent again."""
    left = list(range(count))

    async def all_sent() -> bool:
        with contextlib.suppress(AMQPError, OSError, RuntimeError, TimeoutError):
            async with await broker.connect() as connection:
                channel = await connection.channel()
                while left:
                    some = left[:AT_ONCE]
                    await asyncio.gather(
                        *(send(channel, QUEUE, task(n), message_id=f"s-{n}") for n in some)
                    )
                    del left[: len(some)]
        return not left

    await eventually(all_sent, 120, "confirmation of all")


async def started_tasks(api: httpx.AsyncClient) -> list[str]:
    """The ids of all tasks."""
    found, cursor = list[str](), None
    while True:
        page = (
            await api.get("/tasks", params={"limit": 500, **({"cursor": cursor} if cursor else {})})
        ).json()
        found += [each["task_id"] for each in page["tasks"]]
        if not (cursor := page["next_cursor"]):
            return found


@pytest.mark.timeout(600)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_through_a_killed_broker_is_one_task_a_message(
    broker: RabbitServer, agent: Agent, stack: Stack
) -> None:
    """Kill -9 in their midst, a restart on its data: each is one task with one call."""
    async with stack.client() as api:
        publishing = asyncio.create_task(stream(broker, STREAM))

        async def well_under_way() -> bool:
            return len(agent.work()) > STREAM // 5

        await eventually(well_under_way, 120)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        await publishing

        async def all_called() -> bool:
            keys = {call.body["number"] for call in agent.work()}
            return keys >= set(range(STREAM))

        await eventually(all_called, 400, "a call for each")

        async def quiet() -> bool:
            async with await broker.connect() as connection:
                channel = await connection.channel()
                return not await depth(channel, QUEUE) and not await depth(channel, DEAD)

        await eventually(quiet, 30, "an empty queue")
        calls = Counter(call.body["number"] for call in agent.work())
        assert {1} == set(calls.values())
        assert STREAM == len({call.headers["Idempotency-Key"] for call in agent.work()})

        async def listed() -> bool:
            return len(set(await started_tasks(api))) >= STREAM

        await eventually(listed)
        ids = {call.headers["Idempotency-Key"] for call in agent.work()}
        # The other is the probe of the start, which calls no agent.
        assert len(set(await started_tasks(api)) - ids) <= 1


@pytest.mark.asyncio(loop_scope="module")
async def test_the_same_message_starts_nothing_new(
    broker: RabbitServer, agent: Agent, stack: Stack
) -> None:
    """Sent three times, and asked for by HTTP with its id as the key: one task, one call."""
    async with await broker.connect() as connection, stack.client() as api:
        channel = await connection.channel()
        body = task("twice")
        for _ in range(3):
            await send(channel, QUEUE, body, message_id="twice")
        status = await replayed(api, "twice", body)
        answer = await api.get(f"/status/{status['task_id']}", headers={"Prefer": "wait=20"})
        assert "completed" == answer.json()["status"]

        async def taken() -> bool:
            return not await depth(channel, QUEUE)

        await eventually(taken)
        assert 1 == sum(call.body["number"] == "twice" for call in agent.work())


@pytest.mark.parametrize(
    ("body", "properties", "status", "words"),
    [
        (b"not JSON", {}, 422, "not JSON"),
        (b"[1]", {}, 422, "send a JSON object"),
        (b'{"payload": {}}', {}, 422, "name a pattern"),
        (task(1, pattern="wrok"), {}, 400, "Unknown pattern 'wrok'"),
        (task(1, callback_url="http://169.254.169.254/"), {}, 422, "not public"),
        (task(1), {"content_type": "text/xml"}, 415, "text/xml"),
        (task("x" * 2_000_000), {}, 413, "too many"),
        (task(1), {"message_id": "i" * 255, "priority": 3}, None, ""),
    ],
    ids=["text", "list", "field", "pattern", "receiver", "type", "size", "good"],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_can_never_be_a_task_is_a_dead_letter_with_its_reason(
    broker: RabbitServer,
    agent: Agent,
    stack: Stack,
    body: bytes,
    properties: dict[str, Any],
    status: int | None,
    words: str,
) -> None:
    """As HTTP would refuse it; the message itself is unchanged, and its sender is answered."""
    async with await broker.connect() as connection:
        channel = await connection.channel()
        if status is None:
            before = len(agent.work())
            await send(channel, QUEUE, body, **properties)

            async def called() -> bool:
                return len(agent.work()) > before

            await eventually(called)
            return
        answers = await channel.declare_queue(exclusive=True)
        told = {"message_id": "bad", "correlation_id": "c-1", "reply_to": answers.name}
        await send(channel, QUEUE, body, **(told | properties))
        dead = await next_of(channel, DEAD)
        answer = await next_of(channel, answers.name)
        assert (body, "bad", status) == (dead.body, dead.message_id, dead.headers["x-status"])
        assert words in str(dead.headers["x-error"])
        assert QUEUE == dead.headers["x-queue"]
        assert "c-1" == answer.correlation_id
        assert status == json.loads(answer.body)["status_code"]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_id_that_was_used_for_another_task_is_refused(
    broker: RabbitServer, stack: Stack
) -> None:
    """The second message is not the first one again: it is a dead letter."""
    async with await broker.connect() as connection:
        channel = await connection.channel()
        await send(channel, QUEUE, task("one"), message_id="used")
        await send(channel, QUEUE, task("other"), message_id="used")
        dead = await next_of(channel, DEAD)
        assert 422 == dead.headers["x-status"]
        assert "used before" in str(dead.headers["x-error"])


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_over_the_rate_is_kept_and_started_later(
    broker: RabbitServer, agent: Agent, stack: Stack
) -> None:
    """A limit of one call each 2 s delays three messages; others pass, and none is dead."""
    async with await broker.connect() as connection:
        channel = await connection.channel()
        for number in range(3):
            body = json.dumps({"pattern": "slow", "payload": {"number": number}}).encode()
            await send(channel, QUEUE, body, message_id=f"slow-{number}")
        await send(channel, QUEUE, task("passes"), message_id="passes")

        def numbers(path: str) -> list[Any]:
            return [call.body["number"] for call in agent.work() if call.path == path]

        async def all_called() -> bool:
            return set(numbers("/slow")) == {0, 1, 2} and "passes" in numbers("/work")

        await eventually(all_called, 40)
        assert 3 == len(numbers("/slow"))
        assert 0 == await depth(channel, DEAD)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_messages_priority_is_the_tasks(broker: RabbitServer, stack: Stack) -> None:
    """Where the body names none; beyond our five it counts as the most urgent."""
    async with await broker.connect() as connection, stack.client() as api:
        channel = await connection.channel()
        await send(channel, QUEUE, task("p9"), message_id="p9", priority=9)
        await send(channel, QUEUE, task("p1", priority=1), message_id="p1", priority=4)
        first = await replayed(api, "p9", task("p9", priority=5))
        second = await replayed(api, "p1", task("p1", priority=1))
        for status, priority in ((first, 5), (second, 1)):
            found = await api.get(f"/status/{status['task_id']}", headers={"Prefer": "wait=20"})
            assert priority == found.json()["priority"]


@pytest.mark.asyncio(loop_scope="module")
async def test_messages_wait_while_the_api_is_down(
    broker: RabbitServer, agent: Agent, stack: Stack
) -> None:
    """Killed with messages in hand, they are handed to the next process: one call each."""
    agent.script(Reply(delay=0.05))
    async with await broker.connect() as connection:
        channel = await connection.channel()
        for number in range(60):
            await send(channel, QUEUE, task(f"k{number}"), message_id=f"k{number}")
        await stack.kill("api")

        async def all_called() -> bool:
            return {f"k{n}" for n in range(60)} <= {str(c.body.get("number")) for c in agent.work()}

        await eventually(all_called, 60)
        calls = Counter(call.headers["Idempotency-Key"] for call in agent.work())
        assert {1} == set(calls.values())
