"""Send events and replies to the broker, each confirmed as far as the broker can."""

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Protocol

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange
from pydantic_core import to_json

from orchestrator.config import Settings
from orchestrator.messaging import rabbit, redis_client
from orchestrator.messaging.events import CONTENT_TYPE, Event, News, source_of
from orchestrator.messaging.redis_streams import add_reply

AT_ONCE = 200
"""Confirmations that are waited for together."""


class Publisher(Protocol):
    """Sends to one broker."""

    async def publish(self, news: News) -> None:
        """Send all; on BrokerUnavailable some may have been sent."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


def publisher_of(settings: Settings) -> Publisher | None:
    """The publisher of the configured broker; None without one."""
    if settings.message_queue.type == "none":
        return None
    if settings.message_queue.type == "rabbitmq":
        return RabbitPublisher(settings)
    return RedisPublisher(settings)


class RabbitPublisher:
    """To a topic exchange, persistent, with publisher confirms."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.message_queue
        self._source = source_of(settings.agent.name)
        self._turn = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._exchange: AbstractExchange | None = None
        self._channels: tuple[AbstractChannel, ...] = ()

    async def publish(self, news: News) -> None:
        """Send all, each confirmed."""
        exchange, replies = await self._connected()
        try:
            for begin in range(0, len(news.events), AT_ONCE):
                some = news.events[begin : begin + AT_ONCE]
                await asyncio.gather(*(self._send(exchange, event) for event in some))
            for each in news.answers:
                await rabbit.publish_reply(replies, each.reply, to_json(each.body), each.id)
        except rabbit.TROUBLES as error:
            raise rabbit.unavailable(error, self._settings.events_exchange) from None

    async def _send(self, exchange: AbstractExchange, event: Event) -> None:
        message = aio_pika.Message(
            to_json(event.document(self._source)),
            content_type=CONTENT_TYPE,
            message_id=event.id[:255],
            timestamp=event.at,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        key = event.routing_key
        # Where nobody has bound a queue, nobody wants it.
        await exchange.publish(message, key, mandatory=False, timeout=rabbit.CONFIRM_SECONDS)

    async def _connected(self) -> tuple[AbstractExchange, AbstractChannel]:
        """The exchange and the channel of replies, by a new connection if the last was lost."""
        async with self._turn:
            if self._exchange and not any(each.is_closed for each in self._channels):
                return self._exchange, self._channels[-1]
            await self._leave()
            try:
                return await self._connect()
            except BaseException as error:
                # Whoever waits for it may also be cut off: no half of a connection may stay.
                await self._leave()
                if isinstance(error, rabbit.TROUBLES):
                    raise rabbit.unavailable(error, self._settings.events_exchange) from None
                raise

    async def _connect(self) -> tuple[AbstractExchange, AbstractChannel]:
        settings = self._settings
        opening = rabbit.rabbit_connection(settings, "orchestrator events")
        connection = await self._stack.enter_async_context(opening)
        channel = await connection.channel()
        name = settings.events_exchange
        if settings.declare_queues:
            kind = aio_pika.ExchangeType.TOPIC
            exchange = await channel.declare_exchange(name, kind, durable=True)
        else:
            exchange = await channel.get_exchange(name)
        # Only a reply's queue has to be there.
        replies = await connection.channel(on_return_raises=True)
        self._exchange, self._channels = exchange, (channel, replies)
        return exchange, replies

    async def _leave(self) -> None:
        self._exchange, self._channels = None, ()
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        async with self._turn:
            await self._leave()


class RedisPublisher:
    """Events to channels, which keep nothing; replies to the streams where they are waited for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.message_queue
        self._source = source_of(settings.agent.name)
        self._redis = redis_client.redis_client(self._settings)

    async def publish(self, news: News) -> None:
        """Send all; Redis tells nobody whether somebody has heard an event."""
        try:
            if news.events:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for event in news.events:
                        channel = f"{self._settings.events_exchange}.{event.routing_key}"
                        pipe.publish(channel, to_json(event.document(self._source)))
                    await pipe.execute()
            for each in news.answers:
                await add_reply(self._redis, each.reply, to_json(each.body), each.id)
        except redis_client.TROUBLES as error:
            raise redis_client.unavailable(error) from None

    async def close(self) -> None:
        """Close the connections."""
        with suppress(*redis_client.TROUBLES):
            await self._redis.aclose()
