"""The outbox: to the broker where it confirms, else to the engine, never to nobody."""

import asyncio
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from orchestrator.errors import BrokerUnavailable, EngineUnavailable
from orchestrator.messaging import outbox as outboxes
from orchestrator.messaging.events import Event, EventType, News
from orchestrator.messaging.outbox import REST_SECONDS, Outbox

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def news(number: int) -> News:
    """One event."""
    event = Event.of_task(EventType.QUEUED, f"task-{number}", "run", "reader", NOW, {})
    return News(events=(event,))


class Broker:
    """Confirms, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.sent: list[str] = []

    async def publish(self, sent: News) -> None:
        """Take it, if it is there."""
        self.asked += 1
        if self.away:
            raise BrokerUnavailable("away")
        self.sent += [each.subject for each in sent.events]

    async def close(self) -> None:
        """Nothing."""


class Engine:
    """Keeps what is handed over; each call takes a turn of the loop."""

    def __init__(self) -> None:
        self.away = False
        self.kept: list[list[str]] = []

    async def keep(self, handed: News) -> None:
        """Take it, if it is there."""
        await asyncio.sleep(0)
        if self.away:
            raise EngineUnavailable("away")
        self.kept.append([each.subject for each in handed.events])


class Clock:
    """Told by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


async def test_a_broker_that_confirms_is_all_that_is_asked() -> None:
    """The engine hears nothing."""
    broker, engine = Broker(), Engine()
    await Outbox(broker, engine.keep).send(news(1))
    assert (["task-1"], []) == (broker.sent, engine.kept)


async def test_without_confirmation_the_engine_keeps_it() -> None:
    """And the broker is left alone for a while, then asked again."""
    broker, engine, clock = Broker(), Engine(), Clock()
    outbox = Outbox(broker, engine.keep, clock)
    broker.away = True
    await outbox.send(news(1))
    broker.away = False
    await outbox.send(news(2))
    assert ([["task-1"], ["task-2"]], 1) == (engine.kept, broker.asked)
    clock.now += REST_SECONDS
    await outbox.send(news(3))
    assert ["task-3"] == broker.sent


async def test_what_comes_together_is_handed_over_together() -> None:
    """The first goes at once with what is there; the others, meanwhile come, as one."""
    engine = Engine()
    outbox = Outbox(None, engine.keep)
    await asyncio.gather(*(outbox.send(news(number)) for number in range(50)))
    assert 50 == len({subject for each in engine.kept for subject in each})
    assert len(engine.kept) <= 2


async def test_who_tells_hears_when_nobody_has_it() -> None:
    """Then the activity's retries go on."""
    engine = Engine()
    engine.away = True
    outbox = Outbox(None, engine.keep)
    with pytest.raises(EngineUnavailable):
        await outbox.send(news(1))
    engine.away = False
    await outbox.send(news(1))
    assert [["task-1"]] == engine.kept


class Slow(Broker):
    """Confirms once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def publish(self, sent: News) -> None:
        """Take it then."""
        await self.may.wait()
        await super().publish(sent)


async def test_who_closes_waits_for_what_is_told() -> None:
    """Who tells it does not."""
    broker = Slow()
    outbox = Outbox(broker, Engine().keep)
    outbox.tell(news(1))
    closing = asyncio.create_task(outbox.close())
    await asyncio.sleep(0)
    assert ([], False) == (broker.sent, closing.done())
    broker.may.set()
    await closing
    assert ["task-1"] == broker.sent


async def test_who_closes_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What neither broker nor engine has by then is lost, and the log says how many."""
    monkeypatch.setattr(outboxes, "DRAIN_SECONDS", 0.01)
    outbox = Outbox(Slow(), Engine().keep)
    outbox.tell(news(1))
    outbox.tell(news(2))
    with capture_logs() as lines:
        await outbox.close()
    assert [("events_lost", 2)] == [(line["event"], line["count"]) for line in lines]


async def test_only_so_many_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has its bound, too; the log names what is lost."""
    monkeypatch.setattr(outboxes, "MOST_UNTOLD", 1)
    broker = Slow()
    outbox = Outbox(broker, Engine().keep)
    with capture_logs() as lines:
        outbox.tell(news(1))
        outbox.tell(news(2))
    broker.may.set()
    await outbox.close()
    outbox.tell(news(3))
    await outbox.close()
    assert ["task-1", "task-3"] == broker.sent
    assert [("events_lost", ["task.queued"])] == [(each["event"], each["types"]) for each in lines]


async def test_what_nobody_takes_is_lost_and_logged() -> None:
    """Without harm to whoever told it."""
    engine = Engine()
    engine.away = True
    outbox = Outbox(None, engine.keep)
    with capture_logs() as lines:
        outbox.tell(news(1))
        await outbox.close()
    assert ["events_lost"] == [line["event"] for line in lines]
