"""An agent behind RabbitMQ: it takes what comes to its queue, and answers as a test wants."""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from tests.support.rabbit import RabbitServer

Decide = Callable[["QueueAgent", AbstractIncomingMessage], Awaitable[None]]


@dataclass
class QueueAgent:
    """What has come to the queue, and the way to answer it."""

    channel: AbstractChannel
    queue: str
    port: int
    received: list[AbstractIncomingMessage] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The queue's address, without user and password."""
        return f"amqp://127.0.0.1:{self.port}/{self.queue}"

    async def answer(
        self,
        message: AbstractIncomingMessage,
        body: bytes = b"{}",
        headers: dict[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        """Reply to a message; who does not wait any more gets nothing."""
        assert message.reply_to is not None
        fields = {"correlation_id": message.correlation_id, **properties}
        reply = aio_pika.Message(body, headers=headers or {}, **fields)
        await self.channel.default_exchange.publish(reply, message.reply_to, mandatory=False)


@contextlib.asynccontextmanager
async def queue_agent(broker: RabbitServer, decide: Decide) -> AsyncIterator[QueueAgent]:
    """An agent with a queue of its own, which goes with it."""
    async with await broker.connect() as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"agent.{uuid.uuid4().hex}", auto_delete=True)
        agent = QueueAgent(channel, queue.name, broker.port)

        async def take(message: AbstractIncomingMessage) -> None:
            agent.received.append(message)
            await message.ack()
            await decide(agent, message)

        await queue.consume(take)
        yield agent


async def echo(agent: QueueAgent, message: AbstractIncomingMessage) -> None:
    """Answer with what came."""
    await agent.answer(message, json.dumps({"echo": json.loads(message.body)}).encode())


async def silence(_: QueueAgent, __: AbstractIncomingMessage) -> None:
    """Say nothing."""
