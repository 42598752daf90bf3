"""Agents behind RabbitMQ: the payload goes to their queue, the answer comes back directly.

What is under way when the connection is lost counts as broken off.
"""

import asyncio
import math
import uuid
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from http import HTTPStatus

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, PublishError
from pydantic import SecretStr
from pydantic_core import to_json

from orchestrator.call_errors import (
    AgentDisconnected,
    AgentOverloaded,
    AgentRejected,
    AgentTimedOut,
    AgentUnreachable,
    ReplyTooLarge,
    ReplyUnreadable,
)
from orchestrator.config import Settings
from orchestrator.endpoints import QueueAddress, origin
from orchestrator.errors import BrokerUnavailable
from orchestrator.json_text import decode
from orchestrator.transports import AgentRequest, AgentResponse
from orchestrator.transports.amqp_sessions import REPLY_QUEUE, Broker, Session
from orchestrator.transports.outcomes import (
    excerpt_of,
    is_success,
    kind_of_failure,
    one_line,
    reason_of,
    retry_after_seconds,
)

STATUS, RETRY_AFTER = "status", "retry-after"
"""Headers of a reply, in any case; without a status it is 200."""
APP_ID = "orchestration-agent"
_GUEST = "guest:guest"
_EXCERPT_BYTES = 1200
_LONGEST_PAUSE = 999_999_999.0
_PLAIN_ENCODINGS = {"", "utf-8", "utf8", "identity"}


class AmqpTransport:
    """Requests and replies over RabbitMQ; call ``close`` when done.

    Args:
        max_result_bytes: of a reply's body.
        logins: ``user:password`` by the queue's address, as they stand in a URL. A queue without
            one is called with that of another queue on the same broker, or as guest.
    """

    def __init__(self, max_result_bytes: int, logins: Mapping[str, SecretStr]) -> None:
        self._adopt(max_result_bytes, logins)
        self._brokers: dict[tuple[str, str], Broker] = {}

    def _adopt(self, max_result_bytes: int, logins: Mapping[str, SecretStr]) -> None:
        self._max_result_bytes = max_result_bytes
        self._logins = {
            **{QueueAddress.of(url).broker: login for url, login in logins.items()},
            **logins,
        }

    def configure(self, settings: Settings) -> None:
        """Go by another configuration; who has another user from now on connects anew."""
        self._adopt(settings.limits.max_result_bytes, settings.logins)

    async def send(self, request: AgentRequest) -> AgentResponse:
        """Publish the payload and wait for the reply, all within the request's timeout.

        A cancelled call leaves its message in the queue, where it expires with the timeout.
        """
        who, broker, address = self._recipient(request)
        loop = asyncio.get_running_loop()
        end = loop.time() + request.timeout
        try:
            async with asyncio.timeout_at(end):
                session = await self._session(who, broker)
                message = _message(request, address.path, end - loop.time())
                reply = await _answer(who, session, address, message)
        except TimeoutError:
            raise AgentTimedOut(
                f"{who} did not answer within {round(request.timeout, 3):g} s"
            ) from None
        return self._response(who, reply)

    def _recipient(self, request: AgentRequest) -> tuple[str, Broker, QueueAddress]:
        queue = origin(request.url)
        who = f"{request.agent} at {queue}"
        if request.payload is None:
            raise AgentRejected(f"{who} cannot be polled: a queue has nothing to look at")
        try:
            address = QueueAddress.of(request.url)
        except ValueError as error:
            raise AgentRejected(f"{who} cannot be called: it has to be {error}") from None
        return who, self._broker(queue, address), address

    def _broker(self, queue: str, address: QueueAddress) -> Broker:
        login = self._logins.get(queue) or self._logins.get(address.broker)
        user = login.get_secret_value() if login else _GUEST
        key = (address.broker, user)
        if key not in self._brokers:
            self._brokers[key] = Broker(address, user)
        return self._brokers[key]

    @staticmethod
    async def _session(who: str, broker: Broker) -> Session:
        try:
            return await broker.session()
        except BrokerUnavailable as error:
            raise AgentUnreachable(f"{who} is unreachable: {error}") from None

    def _response(self, who: str, reply: AbstractIncomingMessage) -> AgentResponse:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        status = _status(who, headers.get(STATUS))
        pause = _retry_after(headers.get(RETRY_AFTER))
        if not is_success(status):
            raise kind_of_failure(status)(
                f"{who} answered {_named(status)}",
                status=status,
                excerpt=excerpt_of(reply.body[:_EXCERPT_BYTES]),
                retry_after=pause,
            )
        return AgentResponse(status, self._json(who, status, reply), retry_after=pause)

    def _json(self, who: str, status: int, reply: AbstractIncomingMessage) -> object:
        if len(reply.body) > self._max_result_bytes:
            raise ReplyTooLarge(
                f"{who} answered with more than {self._max_result_bytes:,} bytes "
                "(limits.max_result_bytes)",
                status=status,
            )
        if not reply.body:
            return None
        try:
            return decode(_plain(reply))
        except ValueError as error:
            kind = one_line(reply.content_type or "a message")
            raise ReplyUnreadable(
                f"{who} answered {status} with {kind} that is not JSON: {error}",
                status=status,
                excerpt=excerpt_of(reply.body[:_EXCERPT_BYTES]),
            ) from None

    async def probe(self, url: str, timeout: float, expected: Collection[int] = ()) -> str | None:  # noqa: ARG002 - of the interface
        """None if the queue is there and somebody takes messages from it, else what is wrong."""
        try:
            address = QueueAddress.of(url)
            async with asyncio.timeout(timeout):
                session = await self._broker(origin(url), address).session()
                return await session.problem_of(address.queue)
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except (BrokerUnavailable, ValueError) as error:
            return one_line(str(error))

    async def close(self) -> None:
        """Close all connections."""
        brokers, self._brokers = self._brokers, {}
        await asyncio.gather(*(each.close() for each in brokers.values()))


async def _answer(
    who: str, session: Session, address: QueueAddress, message: aio_pika.Message
) -> AbstractIncomingMessage:
    """The reply, or the call error that its absence is."""
    try:
        return await session.call(address.queue, message)
    except PublishError:
        raise AgentUnreachable(
            f"{who} is unreachable: RabbitMQ has no queue '{address.queue}'"
        ) from None
    except DeliveryError:
        raise AgentOverloaded(f"{who} takes no more: its queue is full") from None
    except BrokerUnavailable as error:
        raise AgentDisconnected(f"{who} has not answered: {error}") from None
    except (ValueError, TypeError) as error:
        # A header that cannot be written.
        raise AgentRejected(f"{who} cannot be called: {reason_of(error)}") from None


def _message(request: AgentRequest, path: str, seconds: float) -> aio_pika.Message:
    key = uuid.uuid4().hex
    return aio_pika.Message(
        to_json(request.payload),
        headers=dict(request.headers),
        content_type="application/json",
        # Of this attempt alone: the reply to an earlier one is not taken for its.
        correlation_id=key,
        # By which the client knows a message that is returned.
        message_id=key,
        reply_to=REPLY_QUEUE,
        # Whoever waits for the answer is gone with the connection, and so may the message be.
        delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT,
        expiration=max(0.001, seconds),
        timestamp=datetime.now(UTC),
        type=None if path == "/" else path,
        app_id=APP_ID,
    )


def _plain(reply: AbstractIncomingMessage) -> bytes:
    encoding = (reply.content_encoding or "").lower()
    if encoding not in _PLAIN_ENCODINGS:
        raise ValueError(f"its content encoding is {one_line(encoding)}")
    return reply.body


def _status(who: str, given: object) -> int:
    if given is None:
        return HTTPStatus.OK
    text = _text(given)
    if not (text.isascii() and text.isdigit() and len(text) == 3 and text[0] in "12345"):  # noqa: PLR2004 - as HTTP has them
        raise ReplyUnreadable(f"{who} answered with the status '{one_line(text)}', which is none")
    return int(text)


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _retry_after(given: object) -> float | None:
    if given is None or isinstance(given, bool):
        return None
    if isinstance(given, int | float):
        return min(max(0.0, float(given)), _LONGEST_PAUSE) if math.isfinite(given) else None
    return retry_after_seconds(_text(given), datetime.now(UTC))


def _text(given: object) -> str:
    if isinstance(given, bytes | bytearray):
        return given.decode(errors="replace")
    return str(given)
