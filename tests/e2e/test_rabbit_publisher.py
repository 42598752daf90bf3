"""The publisher on a real RabbitMQ: nothing that cuts it off stays with it."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aio_pika import Connection

from orchestrator.config import Settings
from orchestrator.messaging.events import Event, EventType, News
from orchestrator.messaging.rabbit_publisher import RabbitPublisher
from tests.support.rabbit import RabbitServer, rabbit_server

pytestmark = [pytest.mark.e2e, pytest.mark.own_topology("no product runs")]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """The broker of the module."""
    with rabbit_server(tmp_path_factory.mktemp("rabbit")) as started:
        yield started


def news() -> News:
    """One event."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return News(events=(Event.of_task(EventType.QUEUED, "task", "run", "reader", at, {}),))


async def test_one_cut_off_while_it_connects_connects_anew(
    broker: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exchange declared and the channel of replies not yet open."""
    given = {"type": "rabbitmq", "host": "127.0.0.1", "port": broker.port}
    publisher = RabbitPublisher(Settings.model_validate({"message_queue": given}, strict=False))
    opened, reached = Connection.channel, asyncio.Event()

    async def hanging(self: Connection, *args: Any, **options: Any) -> Any:
        if options.get("on_return_raises"):
            reached.set()
            await asyncio.Event().wait()
        return await opened(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "channel", hanging)
        cut_off = asyncio.create_task(publisher.publish(news()))
        await asyncio.wait_for(reached.wait(), 20)
        cut_off.cancel()
        await asyncio.gather(cut_off, return_exceptions=True)
    assert cut_off.cancelled()
    await asyncio.wait_for(publisher.publish(news()), 20)
    await publisher.close()
