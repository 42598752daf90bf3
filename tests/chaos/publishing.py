"""Messages to the broker as a patient sender gives them, and what is left in its queues."""

import asyncio
import contextlib
import json
import time
from typing import Any

import aio_pika
from aio_pika.exceptions import AMQPError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.patience import PATIENCE_SECONDS, Stuck
from tests.chaos.stage import DEAD, QUEUE, Stage
from tests.support.rabbit import RabbitServer, send
from tests.support.redis import RedisServer

GROUP = "orchestrator"
TRY_SECONDS = 25.0
TROUBLES = (AMQPError, RedisError, OSError, RuntimeError, TimeoutError)


async def publish(stage: Stage, body: dict[str, Any] | bytes, name: str) -> None:
    """Send a message under its id until the broker has confirmed it.

    Raises:
        Stuck: it did not for five minutes.
    """
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    if stage.broker is None:
        return
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(*TROUBLES):
            async with asyncio.timeout(TRY_SECONDS):
                await _send(stage.broker, text, name)
                return
        await asyncio.sleep(0.3)
    raise Stuck(f"the broker took no message for {PATIENCE_SECONDS:g} s")


async def _send(broker: RabbitServer | RedisServer, text: bytes, name: str) -> None:
    if isinstance(broker, RabbitServer):
        async with await broker.connect() as connection:
            await send(await connection.channel(), QUEUE, text, message_id=name)
    else:
        async with Redis.from_url(broker.url, socket_timeout=10) as redis:
            await redis.xadd(QUEUE, {"body": text, "message_id": name})


async def left(stage: Stage) -> int:
    """How many messages the product has not settled; raises what the broker's client raises."""
    if isinstance(stage.broker, RabbitServer):
        async with asyncio.timeout(TRY_SECONDS), await stage.broker.connect() as connection:
            return await _unsettled(await connection.channel())
    if isinstance(stage.broker, RedisServer):
        async with Redis.from_url(stage.broker.url, socket_timeout=10) as redis:
            return int(await redis.xlen(QUEUE))
    return 0


async def _unsettled(channel: aio_pika.abc.AbstractChannel) -> int:
    """RabbitMQ counts those that it has handed out only for its administrators."""
    queue = await channel.declare_queue(QUEUE, passive=True)
    return int(queue.declaration_result.message_count or 0)


async def buried(stage: Stage) -> set[str]:
    """The ids of the messages among the dead letters; they stay there."""
    if isinstance(stage.broker, RabbitServer):
        async with asyncio.timeout(TRY_SECONDS), await stage.broker.connect() as connection:
            queue = await (await connection.channel()).get_queue(DEAD)
            found = set()
            # What is not acknowledged goes back when the connection is closed.
            while message := await queue.get(fail=False):
                found.add(str(message.message_id))
            return found
    if isinstance(stage.broker, RedisServer):
        async with Redis.from_url(stage.broker.url, socket_timeout=10) as redis:
            entries: list[Any] = await redis.xrange(DEAD) or []
            return {fields.get(b"message_id", b"").decode() for _, fields in entries}
    return set()
