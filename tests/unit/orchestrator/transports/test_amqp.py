"""Requests and replies over a real RabbitMQ: what goes there, what comes back, what goes wrong."""

import asyncio
import gzip
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from orchestrator.call_errors import (
    AgentDisconnected,
    AgentFailed,
    AgentOverloaded,
    AgentRejected,
    AgentTimedOut,
    AgentUnreachable,
    CallError,
    ReplyTooLarge,
    ReplyUnreadable,
)
from orchestrator.transports import AgentRequest
from orchestrator.transports.amqp import AmqpTransport, _retry_after
from tests.support.queues import Decide, QueueAgent, echo, queue_agent, silence
from tests.support.rabbit import RabbitServer, rabbit_server
from tests.support.relay import relay
from tests.support.stack import eventually, free_port

MAX_RESULT_BYTES = 10_000
LONG_SECONDS = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """The broker of the module; nobody stops it."""
    with rabbit_server(tmp_path_factory.mktemp("rabbit")) as started:
        yield started


@asynccontextmanager
async def transport(logins: Mapping[str, SecretStr] | None = None) -> AsyncIterator[AmqpTransport]:
    """A transport that is closed at the end."""
    opened = AmqpTransport(MAX_RESULT_BYTES, logins or {})
    try:
        yield opened
    finally:
        await opened.close()


def request(url: str, timeout: float = LONG_SECONDS, **changes: Any) -> AgentRequest:
    """A request to that queue."""
    fields: dict[str, Any] = {"payload": {"file": "a.pdf"}, "headers": {}} | changes
    return AgentRequest(agent="reader", url=url, timeout=timeout, **fields)


def answering(body: bytes = b"{}", headers: dict[str, Any] | None = None, **more: Any) -> Decide:
    """Answers always the same."""

    async def decide(agent: QueueAgent, message: AbstractIncomingMessage) -> None:
        await agent.answer(message, body, headers, **more)

    return decide


async def test_a_call_carries_all_that_http_would(broker: RabbitServer) -> None:
    """The payload as JSON, the headers as they are, its end as the message's."""
    headers = {"X-Task-ID": "t", "X-Attempt": "2", "Idempotency-Key": "t", "traceparent": "00-1"}
    async with queue_agent(broker, echo) as agent, transport() as opened:
        sent = request(f"{agent.url}#/ingest", headers=headers)
        response = await opened.send(sent)
    [message] = agent.received
    assert (200, {"echo": {"file": "a.pdf"}}) == (response.status, response.body)
    assert headers == message.headers
    assert {"file": "a.pdf"} == json.loads(message.body)
    assert ("application/json", "/ingest") == (message.content_type, message.type)
    assert isinstance(message.expiration, float)
    assert 0 < message.expiration <= LONG_SECONDS


@pytest.mark.parametrize(
    ("headers", "kind", "pause"),
    [
        ({"status": 400}, AgentRejected, None),
        ({"Status": "404"}, AgentRejected, None),
        ({"status": 302}, AgentRejected, None),
        ({"status": 408}, AgentFailed, None),
        ({"status": bytearray(b"500")}, AgentFailed, None),
        ({"status": 503, "Retry-After": 7}, AgentFailed, 7.0),
        ({"status": 429, "retry-after": "3"}, AgentOverloaded, 3.0),
        ({"status": 429, "retry-after": True}, AgentOverloaded, None),
    ],
)
async def test_the_status_of_a_reply_means_what_it_means_over_http(
    broker: RabbitServer, headers: dict[str, Any], kind: type[CallError], pause: float | None
) -> None:
    """With what the agent said, and when it asks to be called again."""
    decide = answering(b'{"error": "no"}', headers)
    async with queue_agent(broker, decide) as agent, transport() as opened:
        with pytest.raises(CallError) as raised:
            await opened.send(request(agent.url))
    error = raised.value
    status = int({name.lower(): value for name, value in headers.items()}["status"])
    assert (kind, status, pause) == (type(error), error.status, error.retry_after)
    assert '{"error": "no"}' == error.excerpt
    assert f"reader at {agent.url} answered {status}" in str(error)


@pytest.mark.parametrize(
    ("decide", "body", "status"),
    [
        (answering(b""), None, 200),
        (answering(b"[1]", {"status": 202, "retry-after": 5}), [1], 202),
        (answering(b'"a"', content_encoding="UTF-8"), "a", 200),
    ],
)
async def test_an_answer_is_any_json_or_nothing(
    broker: RabbitServer, decide: Decide, body: object, status: int
) -> None:
    """Of any 2xx status."""
    async with queue_agent(broker, decide) as agent, transport() as opened:
        response = await opened.send(request(agent.url))
    assert (body, status) == (response.body, response.status)


@pytest.mark.parametrize(
    ("decide", "kind", "words"),
    [
        (answering(b"hello"), ReplyUnreadable, "that is not JSON"),
        (answering(b"[NaN]"), ReplyUnreadable, "that is not JSON"),
        (
            answering(gzip.compress(b"{}"), content_encoding="gzip"),
            ReplyUnreadable,
            "its content encoding is gzip",
        ),
        (answering(b'"%b"' % (b"x" * MAX_RESULT_BYTES)), ReplyTooLarge, "more than 10,000 bytes"),
        (answering(b"{}", {"status": "fine"}), ReplyUnreadable, "the status 'fine', which is none"),
        (answering(b"{}", {"status": 99}), ReplyUnreadable, "the status '99', which is none"),
    ],
)
async def test_an_answer_that_is_none_is_told_apart(
    broker: RabbitServer, decide: Decide, kind: type[CallError], words: str
) -> None:
    """For good: it would be the same the next time."""
    async with queue_agent(broker, decide) as agent, transport() as opened:
        with pytest.raises(kind, match=words):
            await opened.send(request(agent.url))


async def test_a_queue_that_is_not_there_is_no_connection(broker: RabbitServer) -> None:
    """The broker returns the message at once; nobody waits for the timeout."""
    url = f"amqp://127.0.0.1:{broker.port}/missing"
    async with transport() as opened:
        with pytest.raises(AgentUnreachable, match="RabbitMQ has no queue"):
            await opened.send(request(url, timeout=3600))


async def test_a_queue_that_is_full_asks_for_fewer_calls(broker: RabbitServer) -> None:
    """One that refuses what is published, instead of dropping it."""
    async with await broker.connect() as connection, transport() as opened:
        channel = await connection.channel()
        arguments: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
        await channel.declare_queue("full", auto_delete=True, arguments=arguments)
        url = f"amqp://127.0.0.1:{broker.port}/full"
        first = asyncio.create_task(opened.send(request(url)))
        await eventually(lambda: _count(channel, "full"), what="the first message")
        with pytest.raises(AgentOverloaded, match="its queue is full"):
            await opened.send(request(url))
        first.cancel()


async def _count(channel: AbstractChannel, queue: str) -> int:
    found = await channel.declare_queue(queue, passive=True)
    return found.declaration_result.message_count or 0


async def test_a_call_that_nobody_answers_times_out_and_leaves_nothing(
    broker: RabbitServer,
) -> None:
    """Its message expires with it."""
    async with await broker.connect() as connection, transport() as opened:
        channel = await connection.channel()
        await channel.declare_queue("idle", auto_delete=True)
        url = f"amqp://127.0.0.1:{broker.port}/idle"
        with pytest.raises(AgentTimedOut, match=r"did not answer within 0\.5 s"):
            await opened.send(request(url, timeout=0.5))

        async def gone() -> bool:
            return await _count(channel, "idle") == 0

        await eventually(gone, what="an empty queue")


async def test_each_call_gets_its_own_answer(broker: RabbitServer) -> None:
    """In whichever order they come, over one connection."""
    everybody = asyncio.Barrier(20)

    async def last_first(agent: QueueAgent, message: AbstractIncomingMessage) -> None:
        await everybody.wait()
        await echo(agent, message)

    async with (
        queue_agent(broker, last_first) as agent,
        relay(broker.port) as through,
        transport() as opened,
        asyncio.timeout(LONG_SECONDS),
    ):
        url = agent.url.replace(str(broker.port), str(through.port))
        calls = (opened.send(request(url, payload={"n": n})) for n in range(20))
        answers = [each.body for each in await asyncio.gather(*calls)]
    assert [{"echo": {"n": n}} for n in range(20)] == answers
    assert 1 == through.connections


async def test_a_late_answer_is_nobodys(broker: RabbitServer) -> None:
    """The next call of the same task has a correlation id of its own."""
    held: list[AbstractIncomingMessage] = []

    async def first_late(agent: QueueAgent, message: AbstractIncomingMessage) -> None:
        if not held:
            held.append(message)
            return
        await agent.answer(held[0], b'"late"')
        await agent.answer(message, b'"in time"')

    async with queue_agent(broker, first_late) as agent, transport() as opened:
        with pytest.raises(AgentTimedOut):
            await opened.send(request(agent.url, timeout=0.5))
        await eventually(lambda: _true(held), what="the first message")
        response = await opened.send(request(agent.url))
    assert "in time" == response.body


async def _true(value: object) -> bool:
    return bool(value)


async def test_a_cancelled_call_ends_at_once(broker: RabbitServer) -> None:
    """And others go on over the same connection."""
    async with queue_agent(broker, silence) as quiet, transport() as opened:
        call = asyncio.create_task(opened.send(request(quiet.url)))
        await eventually(lambda: _true(quiet.received), what="the message")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with queue_agent(broker, echo) as agent:
            response = await opened.send(request(agent.url))
    assert 200 == response.status


async def test_calls_over_a_connection_that_breaks_are_broken_off(broker: RabbitServer) -> None:
    """At once, not after their timeout; the next call makes a connection anew."""
    async with (
        queue_agent(broker, silence) as quiet,
        queue_agent(broker, echo) as agent,
        relay(broker.port) as through,
        transport() as opened,
        asyncio.timeout(LONG_SECONDS),
    ):
        there = quiet.url.replace(str(broker.port), str(through.port))
        calls = [asyncio.create_task(opened.send(request(there, timeout=3600))) for _ in range(3)]
        await eventually(lambda: _true(len(quiet.received) == 3), what="all messages")
        through.cut()
        for each in calls:
            with pytest.raises(AgentDisconnected, match="the connection to RabbitMQ was lost"):
                await each
        url = agent.url.replace(str(broker.port), str(through.port))
        response = await opened.send(request(url))
    assert (200, 2) == (response.status, through.connections)


async def test_without_a_broker_there_is_no_connection() -> None:
    """As for any other server that is not there."""
    url = f"amqp://127.0.0.1:{free_port()}/work"
    async with transport() as opened:
        with pytest.raises(AgentUnreachable, match="is unreachable: RabbitMQ at amqp"):
            await opened.send(request(url))
        assert "RabbitMQ at" in str(await opened.probe(url, 10))


@pytest.mark.parametrize(
    ("login", "vhost"), [("guest:wr%2Fong", "%2F"), ("guest:guest", "nowhere")]
)
async def test_who_may_not_come_in_is_told_so_without_the_password(
    broker: RabbitServer, login: str, vhost: str
) -> None:
    """Nor is the password part of the error."""
    url = f"amqp://127.0.0.1:{broker.port}/{vhost}/work"
    async with transport({url: SecretStr(login)}) as opened:
        with pytest.raises(AgentUnreachable) as raised:
            await opened.send(request(url))
    assert "wr" not in str(raised.value).replace("write", "")


async def test_another_queue_of_the_broker_has_the_same_login(broker: RabbitServer) -> None:
    """As those have that are added at run time."""
    known = f"amqp://127.0.0.1:{broker.port}/known"
    async with queue_agent(broker, echo) as agent, transport({known: SecretStr("a:b")}) as opened:
        with pytest.raises(AgentUnreachable, match="ACCESS_REFUSED"):
            await opened.send(request(agent.url))


async def test_an_address_or_a_request_that_cannot_be_is_refused() -> None:
    """For good, before anything is connected."""
    async with transport() as opened:
        with pytest.raises(AgentRejected, match="it has to be amqp://host/queue"):
            await opened.send(request("amqp://127.0.0.1"))
        with pytest.raises(AgentRejected, match="a queue has nothing to look at"):
            await opened.send(request("amqp://127.0.0.1/work", payload=None))


async def test_a_queue_is_well_when_somebody_takes_from_it(broker: RabbitServer) -> None:
    """One that is there is not enough; looking at a missing one disturbs no call."""
    async with queue_agent(broker, echo) as agent, transport() as opened:
        assert await opened.probe(f"{agent.url}#/health", 30) is None
        missing = f"amqp://127.0.0.1:{broker.port}/missing"
        assert "RabbitMQ has no queue 'missing'" == await opened.probe(missing, 30)
        await agent.channel.declare_queue("lonely", auto_delete=True)
        lonely = f"amqp://127.0.0.1:{broker.port}/lonely"
        assert "nobody takes messages from queue 'lonely'" == await opened.probe(lonely, 30)
        assert 200 == (await opened.send(request(agent.url))).status


async def test_amqps_is_spoken_to_a_server_that_is_trusted(
    broker: RabbitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the authorities of the system, or those of SSL_CERT_FILE."""
    tls = _certificate(tmp_path)
    async with queue_agent(broker, echo) as agent, relay(broker.port, tls) as through:
        url = f"amqps://127.0.0.1:{through.port}/{agent.queue}"
        async with transport() as distrusting:
            with pytest.raises(AgentUnreachable, match="certificate"):
                await distrusting.send(request(url))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        async with transport() as trusting:
            assert 200 == (await trusting.send(request(url))).status


def _certificate(directory: Path) -> ssl.SSLContext:
    """A server's context with a certificate of its own for 127.0.0.1, kept in server.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (directory / "server.pem").write_bytes(certificate.public_bytes(encoding))
    private = serialization.PrivateFormat.PKCS8
    (directory / "key.pem").write_bytes(
        key.private_bytes(encoding, private, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "key.pem")
    return context


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(5, 5.0), (-1, 0.0), (float("inf"), None), (float("nan"), None), (1e300, 999_999_999.0)],
)
def test_no_pause_is_endless(given: float, seconds: float | None) -> None:
    """What an agent says of when to come again is taken within bounds."""
    assert seconds == _retry_after(given)
