"""Send events and replies to RabbitMQ, each confirmed."""

import asyncio
from contextlib import AsyncExitStack

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange
from pydantic_core import to_json

from orchestrator.config import Settings
from orchestrator.messaging import rabbit
from orchestrator.messaging.events import CONTENT_TYPE, Event, News, source_of

AT_ONCE = 200
"""Confirmations that are waited for together."""


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
