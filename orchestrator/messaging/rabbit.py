"""Tasks from RabbitMQ: durable quorum queues, manual acknowledgement, publisher confirms."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError
from aiormq.exceptions import AMQPError
from pamqp.exceptions import PAMQPException
from pydantic_core import to_json

from orchestrator.config import MessageQueue
from orchestrator.endpoints import AMQP_PORTS
from orchestrator.errors import BrokerUnavailable, MessageRefused
from orchestrator.messaging import Message, Take
from orchestrator.messaging.delivery import settle
from orchestrator.messaging.sessions import PATIENCE_SECONDS, keep_going
from orchestrator.models import ReplyTo
from orchestrator.telemetry.logging import get_logger
from orchestrator.values import MAX_PRIORITY

CONFIRM_SECONDS = 5.0
"""How long a confirmation may take, beyond which the broker counts as lost."""
HEARTBEAT_SECONDS = 10
ANSWER_TYPE = "application/json"
CAREFUL_SECONDS = 2.0
"""After a lost session, messages are taken one at a time for so long: one of them may be its cause.

A message that the client cannot decode ends the connection, and each message that was handed out
with it counts as delivered once more, so that they would become dead letters together.
"""
NOT_SETTLED_SECONDS = 2.0
"""A message that could be neither settled nor buried goes back to the broker after so long."""
_MAX_HEADER_CHARACTERS = 1000
_DELIVERY_COUNT = "x-delivery-count"

TROUBLES = (AMQPError, PAMQPException, OSError, TimeoutError, RuntimeError)
"""What the client raises when the broker is not there, or has gone."""

log = get_logger(__name__)


@asynccontextmanager
async def rabbit_connection(settings: MessageQueue, name: str) -> AsyncIterator[AbstractConnection]:
    """A connection of that name, closed at the end.

    Raises:
        BrokerUnavailable: nobody answers, or the credentials are wrong.
    """
    address, told = _address(settings)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            connection = await aio_pika.connect(
                **address,
                client_properties={"connection_name": name},
                heartbeat=HEARTBEAT_SECONDS,
            )
    except CONNECTION_EXCEPTIONS as error:
        raise unavailable(error, told) from None
    try:
        yield connection
    finally:
        # One that was lost cannot be closed properly.
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await connection.close()
        except TROUBLES:
            log.debug("broker_close_failed", exc_info=True)


def _address(settings: MessageQueue) -> tuple[dict[str, Any], str]:
    """What to connect to, and how to name that without its password."""
    if settings.url is not None:
        return {"url": settings.url.get_secret_value()}, "message_queue.url"
    port = settings.port or AMQP_PORTS["amqps" if settings.tls else "amqp"]
    password = settings.password.get_secret_value() if settings.password else "guest"
    address = {
        "host": settings.host,
        "port": port,
        "login": settings.username or "guest",
        "password": password,
        "virtualhost": settings.vhost,
        "ssl": settings.tls,
    }
    return address, f"{settings.host}:{port}"


def unavailable(error: BaseException, where: str) -> BrokerUnavailable:
    """The same trouble in our words."""
    reason = str(error) or type(error).__name__
    return BrokerUnavailable(f"RabbitMQ at {where}: {reason}")


async def declare_queues(channel: AbstractChannel, settings: MessageQueue) -> None:
    """Make the two queues, where they are not there, with what the bounds need."""
    if not settings.declare_queues:
        return
    quorum: dict[str, Any] = {"x-queue-type": "quorum"}
    await channel.declare_queue(settings.dead_letter_queue, durable=True, arguments=quorum)
    await channel.declare_queue(
        settings.queue,
        durable=True,
        arguments={
            **quorum,
            "x-max-length": settings.max_length,
            # Who publishes is told that it is full, and nothing is dropped.
            "x-overflow": "reject-publish",
            "x-delivery-limit": settings.delivery_limit,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": settings.dead_letter_queue,
            "x-dead-letter-strategy": "at-least-once",
        },
    )


class RabbitIngest:
    """Takes tasks from the queue, as many at a time as the prefetch allows."""

    def __init__(self, settings: MessageQueue, take: Take) -> None:
        self._settings = settings
        self._take = take
        self._careful = False

    async def run(self) -> None:
        """Take tasks until cancelled, through whatever the broker does."""
        await keep_going("ingest", self._session)

    async def _session(self, opened: Callable[[], None]) -> None:
        async with rabbit_connection(self._settings, "orchestrator ingest") as connection:
            lost, in_hand = asyncio.Event(), set[asyncio.Task[None]]()
            try:
                widen = await self._open(connection, lost, in_hand)
                opened()
                await self._hold(lost, widen)
                raise BrokerUnavailable("RabbitMQ has ended the connection or the consumer")
            finally:
                # What it held RabbitMQ hands out again: nobody else may go on with it.
                lost.set()
                for each in in_hand:
                    each.cancel()
                await asyncio.gather(*in_hand, return_exceptions=True)

    async def _hold(self, lost: asyncio.Event, widen: Callable[[], Awaitable[None]]) -> None:
        """Wait for the end of the session, at first with one message at a time where it is wise."""
        if self._careful:
            with suppress(TimeoutError):
                async with asyncio.timeout(CAREFUL_SECONDS):
                    await lost.wait()
            if not lost.is_set():
                await widen()
        self._careful = True
        await lost.wait()

    async def _open(
        self, connection: AbstractConnection, lost: asyncio.Event, in_hand: set[asyncio.Task[None]]
    ) -> Callable[[], Awaitable[None]]:
        """Begin to take messages; their work is ``in_hand`` until they are settled.

        Returns what has as many messages handed out as are wanted.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reading = await connection.channel(publisher_confirms=False)
                writing = await connection.channel(on_return_raises=True)
                await declare_queues(writing, self._settings)
                return await self._consume(reading, writing, lost, in_hand)
        except CONNECTION_EXCEPTIONS as error:
            raise unavailable(error, self._settings.queue) from None

    async def _consume(
        self,
        reading: AbstractChannel,
        writing: AbstractChannel,
        lost: asyncio.Event,
        in_hand: set[asyncio.Task[None]],
    ) -> Callable[[], Awaitable[None]]:
        def over(*_: object) -> None:
            lost.set()

        async def begin(message: AbstractIncomingMessage) -> None:
            if not lost.is_set():
                working = asyncio.create_task(self._settle(message, writing))
                in_hand.add(working)
                working.add_done_callback(in_hand.discard)

        reading.close_callbacks.add(over)
        # An error of one publication closes its channel, and the dead letters need it.
        writing.close_callbacks.add(over)
        await reading.set_qos(prefetch_count=1 if self._careful else self._settings.prefetch)
        queue = await reading.get_queue(self._settings.queue)
        underlay = await reading.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(over)
        tag = await queue.consume(begin)

        async def widen() -> None:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await queue.cancel(tag)
                    # It holds for consumers that come after it.
                    await reading.set_qos(prefetch_count=self._settings.prefetch)
                    await queue.consume(begin)
            except CONNECTION_EXCEPTIONS as error:
                raise unavailable(error, self._settings.queue) from None

        return widen

    async def _settle(self, incoming: AbstractIncomingMessage, writing: AbstractChannel) -> None:
        """One message, from here to its acknowledgement."""
        delivery = _RabbitDelivery(incoming, writing, self._settings)
        try:
            await settle(delivery, self._take)
        except TROUBLES as error:
            # With the connection gone the broker hands the message out again by itself.
            log.warning("message_not_settled", message_id=delivery.message.id, error=str(error))
            await asyncio.sleep(NOT_SETTLED_SECONDS)
            if not incoming.channel.is_closed:
                await incoming.reject(requeue=True)


class _RabbitDelivery:
    """A message that RabbitMQ has handed out."""

    def __init__(
        self, incoming: AbstractIncomingMessage, writing: AbstractChannel, settings: MessageQueue
    ) -> None:
        self._incoming = incoming
        self._writing = writing
        self._settings = settings
        self.message = _message(incoming)

    async def done(self) -> None:
        await self._incoming.ack()

    async def bury(self, refused: MessageRefused) -> None:
        reason = {
            "x-error": str(refused)[:_MAX_HEADER_CHARACTERS],
            "x-status": refused.status,
            "x-queue": self._settings.queue,
        }
        await self._publish(self._copy(reason), self._settings.dead_letter_queue)
        if reply := self.message.reply:
            body = {"status": "refused", "status_code": refused.status, "detail": str(refused)}
            await publish_reply(self._writing, reply, to_json(body), f"refused/{self.message.id}")
        await self._incoming.ack()

    async def keep(self) -> None:
        """Nothing: RabbitMQ waits for the acknowledgement as long as the connection is there."""

    async def postpone(self) -> bool:
        try:
            await self._publish(self._copy({}), self._settings.queue)
        except DeliveryError:
            return False
        await self._incoming.ack()
        return True

    async def _publish(self, message: aio_pika.Message, queue: str) -> None:
        await self._writing.default_exchange.publish(message, queue, timeout=CONFIRM_SECONDS)

    def _copy(self, headers: dict[str, Any]) -> aio_pika.Message:
        """The same message with further headers."""
        incoming = self._incoming
        kept = {name: value for name, value in incoming.headers.items() if name != _DELIVERY_COUNT}
        return aio_pika.Message(
            incoming.body,
            headers={**kept, **headers},
            content_type=incoming.content_type,
            content_encoding=incoming.content_encoding,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            priority=incoming.priority,
            correlation_id=incoming.correlation_id,
            reply_to=incoming.reply_to,
            message_id=self.message.id,
            timestamp=incoming.timestamp,
            type=incoming.type,
            app_id=incoming.app_id,
        )


def _message(incoming: AbstractIncomingMessage) -> Message:
    """What our side needs of it. One without an id gets one, which holds while it is in hand."""
    correlation = incoming.correlation_id
    trace = incoming.headers.get("traceparent")
    return Message(
        body=incoming.body,
        id=incoming.message_id or str(uuid.uuid4()),
        content_type=incoming.content_type,
        # Zero is also what the client makes of a message without one.
        priority=min(incoming.priority, MAX_PRIORITY) if incoming.priority else None,
        reply=ReplyTo(to=incoming.reply_to, correlation_id=correlation)
        if incoming.reply_to
        else None,
        traceparent=trace if isinstance(trace, str) else None,
    )


async def publish_reply(
    channel: AbstractChannel, reply: ReplyTo, body: bytes, message_id: str
) -> None:
    """Send a reply, confirmed; one whose queue is gone is waited for by nobody."""
    message = aio_pika.Message(
        body,
        content_type=ANSWER_TYPE,
        correlation_id=reply.correlation_id,
        message_id=message_id,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    try:
        await channel.default_exchange.publish(message, reply.to, timeout=CONFIRM_SECONDS)
    except DeliveryError:
        log.warning("reply_undeliverable", queue=reply.to, message_id=message_id)
