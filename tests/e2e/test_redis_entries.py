"""Entries of a real Redis stream as they are read: none of them ends the reading."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from orchestrator.config import MessageQueue
from orchestrator.messaging import Message, redis_streams
from orchestrator.messaging.redis_streams import RedisIngest
from tests.support.redis import RedisServer, redis_server
from tests.support.stack import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.own_topology("no product runs")]

QUEUE, DEAD = "orchestrator.tasks", "orchestrator.tasks.dead"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The broker of the module."""
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


def settings(broker: RedisServer) -> MessageQueue:
    """How to reach the broker."""
    given = {"type": "redis", "host": "127.0.0.1", "port": broker.port}
    return MessageQueue.model_validate(given, strict=False)


@pytest_asyncio.fixture
async def redis(broker: RedisServer) -> AsyncIterator[Redis]:
    """A client of the broker, which is empty."""
    async with Redis.from_url(broker.url, socket_timeout=20) as client:
        await client.flushall()
        yield client


@pytest_asyncio.fixture
async def taken(broker: RedisServer, redis: Redis) -> AsyncIterator[list[Message]]:
    """What an ingest has taken so far."""
    found: list[Message] = []

    async def take(message: Message) -> None:
        found.append(message)

    ingest = RedisIngest(settings(broker), take)
    running = asyncio.create_task(ingest.run())
    yield found
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("text", "priority"),
    [("4", 4), ("9", 5), ("1" * 5000, 5), ("0", None), ("-1", None), ("²", None), ("high", None)],
    ids=["4", "9", "huge", "0", "-1", "superscript", "word"],
)
async def test_any_priority_can_be_read(
    redis: Redis, taken: list[Message], text: str, priority: int | None
) -> None:
    """More than 5 is 5, however much more; what is no number says nothing."""
    await redis.xadd(QUEUE, {"body": "{}", "message_id": "a", "priority": text})

    async def came() -> bool:
        return bool(taken)

    await eventually(came)
    assert [priority] == [each.priority for each in taken]


async def test_what_cannot_be_read_is_a_dead_letter(
    redis: Redis, taken: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason; the next entry is taken."""
    read = redis_streams._priority

    def picky(text: str) -> int | None:
        if text == "odd":
            raise ValueError("it is odd")
        return read(text)

    monkeypatch.setattr(redis_streams, "_priority", picky)
    await redis.xadd(QUEUE, {"body": "{}", "message_id": "a", "priority": "odd"})
    await redis.xadd(QUEUE, {"body": "{}", "message_id": "b"})

    async def buried() -> Any:
        return await redis.xrange(DEAD) if taken else None

    [(_, dead)] = await eventually(buried)
    assert (b"400", b"a", b"odd") == (dead[b"x-status"], dead[b"message_id"], dead[b"priority"])
    assert "cannot be read: it is odd" in dead[b"x-error"].decode()
    assert ["b"] == [each.id for each in taken]


async def test_it_ends_whenever_it_is_told_to(broker: RedisServer, redis: Redis) -> None:
    """Also in the moment in which the broker has just taken a request."""

    async def take(message: Message) -> None:
        """Take all."""

    await redis.xadd(QUEUE, {"body": "{}"})
    ends = []
    for moment in range(300):
        running = asyncio.create_task(RedisIngest(settings(broker), take).run())
        for _ in range(moment % 60):
            await asyncio.sleep(0)
        running.cancel()
        ends.append(running)
    _, deaf = await asyncio.wait(ends, timeout=20)
    assert not deaf
