"""Connections to RabbitMQ over which agents are called.

Each worker process has one for each broker and user. The first call makes it, and the next one
after it was lost. Answers come by RabbitMQ's direct reply-to, which needs no queue and lives as
long as the connection.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError, PublishError
from aiormq.exceptions import ChannelNotFoundEntity

from orchestrator.endpoints import QueueAddress
from orchestrator.errors import BrokerUnavailable
from orchestrator.telemetry.logging import get_logger
from orchestrator.transports.outcomes import reason_of

CONNECT_SECONDS = 10.0
HEARTBEAT_SECONDS = 10
REPLY_QUEUE = "amq.rabbitmq.reply-to"

log = get_logger(__name__)


class Broker:
    """One broker with one user, and the connection to it while there is one."""

    def __init__(self, address: QueueAddress, login: str) -> None:
        user, _, password = login.partition(":")
        self._where = address.broker
        self._parameters: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "login": unquote(user),
            "password": unquote(password),
            "virtualhost": address.vhost,
            "ssl": address.scheme == "amqps",
        }
        self._session: Session | None = None
        self._opening: asyncio.Task[Session] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def session(self) -> "Session":
        """The connection, made anew if it was lost; all who ask meanwhile wait for the same one.

        Raises:
            BrokerUnavailable: nobody answers, or the user may not come in.
        """
        if self._session is not None and not self._session.lost:
            return self._session
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        with _losses():
            return await asyncio.shield(self._opening)

    def _opened(self, opening: "asyncio.Task[Session]") -> None:
        self._opening = None
        if opening.cancelled() or opening.exception() is not None:
            return
        if self._session is not None:
            # The broker may have closed its channel alone.
            self._leaving = asyncio.create_task(self._session.close())
        self._session = opening.result()

    async def _open(self) -> "Session":
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await aio_pika.connect(
                    **self._parameters,
                    client_properties={"connection_name": "orchestrator calls"},
                    heartbeat=HEARTBEAT_SECONDS,
                )
                try:
                    return await Session.over(connection)
                except BaseException:
                    await _leave(connection)
                    raise
        except TimeoutError:
            reason = f"no connection within {CONNECT_SECONDS:g} s"
            raise BrokerUnavailable(f"RabbitMQ at {self._where}: {reason}") from None
        except CONNECTION_EXCEPTIONS as error:
            raise BrokerUnavailable(f"RabbitMQ at {self._where}: {reason_of(error)}") from None

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._opening is not None:
            self._opening.cancel()
        if self._session is not None:
            await self._session.close()


class Session:
    """One connection, from its making to its loss."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self.lost = False
        self._connection = connection
        self._channel = channel
        self._waiting: dict[str, asyncio.Future[AbstractIncomingMessage]] = {}

    @classmethod
    async def over(cls, connection: AbstractConnection) -> "Session":
        """Make ready to call over a connection."""
        channel = await connection.channel(on_return_raises=True)
        session = cls(connection, channel)
        connection.close_callbacks.add(session._end)
        channel.close_callbacks.add(session._end)
        replies = await channel.get_queue(REPLY_QUEUE, ensure=False)
        await replies.consume(session._take, no_ack=True)
        return session

    async def call(self, queue: str, message: aio_pika.Message) -> AbstractIncomingMessage:
        """Send a message to the queue, confirmed, and wait for its reply.

        Raises:
            PublishError: there is no such queue.
            DeliveryError: the queue takes no more.
            BrokerUnavailable: the connection was lost.
        """
        answer: asyncio.Future[AbstractIncomingMessage]
        answer = asyncio.get_running_loop().create_future()
        key = message.correlation_id or ""
        self._waiting[key] = answer
        try:
            with _losses():
                await self._channel.default_exchange.publish(message, queue)
                return await answer
        finally:
            del self._waiting[key]

    async def _take(self, reply: AbstractIncomingMessage) -> None:
        answer = self._waiting.get(reply.correlation_id or "")
        if answer is not None and not answer.done():
            answer.set_result(reply)
        elif not reply.correlation_id:
            log.warning("reply_unclaimed", advice="agents have to copy the correlation_id")

    def _end(self, *_: object) -> None:
        self.lost = True
        for answer in self._waiting.values():
            answer.cancel()

    async def problem_of(self, queue: str) -> str | None:
        """What keeps a queue from being served.

        Raises:
            BrokerUnavailable: the connection was lost.
        """
        with _losses():
            # The broker closes a channel that asks for what is not there.
            channel = await self._connection.channel(publisher_confirms=False)
            try:
                found = await channel.declare_queue(queue, passive=True)
            except ChannelNotFoundEntity:
                return f"RabbitMQ has no queue '{queue}'"
            finally:
                with suppress(*CONNECTION_EXCEPTIONS):
                    await channel.close()
        if not found.declaration_result.consumer_count:
            return f"nobody takes messages from queue '{queue}'"
        return None

    async def close(self) -> None:
        """Close the connection."""
        await _leave(self._connection)


async def _leave(connection: AbstractConnection) -> None:
    # One that was lost cannot be closed properly.
    with suppress(TimeoutError, *CONNECTION_EXCEPTIONS):
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.close()


@contextmanager
def _losses() -> Iterator[None]:
    """Tell a lost connection, for which the client cancels what waits, from a cancelled caller.

    Raises:
        BrokerUnavailable: the connection was lost.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable("the connection to RabbitMQ was lost") from None
    except (PublishError, DeliveryError, ChannelNotFoundEntity):
        raise
    except CONNECTION_EXCEPTIONS as error:
        raise BrokerUnavailable(
            f"the connection to RabbitMQ was lost: {reason_of(error)}"
        ) from None
