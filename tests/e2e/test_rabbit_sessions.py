"""The end of a session with a real RabbitMQ: what it held is nobody's work any more."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pamqp.encode
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel

from orchestrator.config import MessageQueue
from orchestrator.messaging import Message
from orchestrator.messaging.rabbit import RabbitIngest, declare_queues
from tests.support.rabbit import RabbitServer, rabbit_server, send
from tests.support.stack import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.own_topology("no product runs")]

LIMIT = 5
"""More often than that no message is handed out."""


class Slow:
    """Begins with tasks, and starts none before it is cut off."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.cut_off: list[bytes] = []

    async def take(self, message: Message) -> None:
        """Wait for ever."""
        self.begun.append(message.body)
        try:
            await asyncio.Event().wait()
        finally:
            self.cut_off.append(message.body)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """The broker of the module."""
    with rabbit_server(tmp_path_factory.mktemp("rabbit")) as started:
        yield started


@pytest.fixture
def settings(broker: RabbitServer) -> MessageQueue:
    """Where tasks are taken from."""
    given = {"type": "rabbitmq", "host": "127.0.0.1", "port": broker.port, "delivery_limit": LIMIT}
    return MessageQueue.model_validate(given, strict=False)


@pytest_asyncio.fixture
async def channel(broker: RabbitServer, settings: MessageQueue) -> AsyncIterator[AbstractChannel]:
    """Of a test; a message without an id waits in the queue."""
    async with await broker.connect() as connection:
        channel = await connection.channel()
        await declare_queues(channel, settings)
        await (await channel.get_queue(settings.queue)).purge()
        await send(channel, settings.queue, b"held")
        yield channel


@pytest.fixture
def slow() -> Slow:
    """What is to take it."""
    return Slow()


@pytest_asyncio.fixture
async def ingest(
    channel: AbstractChannel, settings: MessageQueue, slow: Slow
) -> AsyncIterator[asyncio.Task[None]]:
    """One that has it in hand."""
    running = asyncio.create_task(RabbitIngest(settings, slow.take).run())

    async def begun() -> bool:
        return bool(slow.begun)

    await eventually(begun, what="a message in hand")
    yield running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_ingest_that_stops_works_on_nothing(
    ingest: asyncio.Task[None], slow: Slow
) -> None:
    """Its tasks have ended before it has: what they use is closed next."""
    ingest.cancel()
    await asyncio.gather(ingest, return_exceptions=True)
    assert [b"held"] == slow.cut_off


async def test_what_a_lost_session_held_is_left_to_the_next(
    ingest: asyncio.Task[None], slow: Slow, channel: AbstractChannel, settings: MessageQueue
) -> None:
    """The broker ends the consumer; whoever gets the message then is alone with it."""
    await channel.queue_delete(settings.queue)

    async def cut_off() -> bool:
        return bool(slow.cut_off)

    await eventually(cut_off, what="a message that was let go")
    assert ([b"held"], False) == (slow.cut_off, ingest.done())


async def test_a_message_that_cannot_be_decoded_takes_no_other_with_it(
    channel: AbstractChannel,
    settings: MessageQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends every connection that gets it, and alone becomes a dead letter."""
    await (await channel.get_queue(settings.queue)).purge()
    taken = set[str]()

    async def take(message: Message) -> None:
        taken.add(message.id)

    names = {str(number) for number in range(5)}
    with monkeypatch.context() as patched:
        real = pamqp.encode.METHODS["shortstr"]
        odd = b"\x01\xff"
        methods = {"shortstr": lambda text: odd if text == "odd" else real(text)}
        patched.setattr(pamqp.encode, "METHODS", pamqp.encode.METHODS | methods)
        for name in ("odd", *sorted(names)):
            await send(channel, settings.queue, b"{}", message_id=name)
    running = asyncio.create_task(RabbitIngest(settings, take).run())

    async def all_taken() -> bool:
        return taken == names

    async def buried() -> bool:
        dead = await channel.declare_queue(settings.dead_letter_queue, passive=True)
        return dead.declaration_result.message_count == 1

    try:
        await eventually(all_taken, 90, "the others")
        await eventually(buried, 30, "the dead letter")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
