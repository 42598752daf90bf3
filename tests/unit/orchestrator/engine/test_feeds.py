"""One source for all who listen, each from where they had stopped, until nobody does."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from orchestrator.engine import feeds
from orchestrator.engine.feeds import Feeds
from orchestrator.errors import TaskNotFound
from orchestrator.events import LiveEvent


class Numbers:
    """Tells 1, 2, 3, ... as it is told to, and ends."""

    def __init__(self, *, is_over: bool = False, error: Exception | None = None) -> None:
        self.queue = asyncio.Queue[int | None]()
        self.begun = 0
        self._is_over = is_over
        self._error = error

    async def begin(self) -> bool:
        """It exists, or not."""
        self.begun += 1
        if self._error:
            raise self._error
        return self._is_over

    async def events(self) -> AsyncIterator[LiveEvent]:
        """What was put into the queue."""
        while (number := await self.queue.get()) is not None:
            yield LiveEvent(str(number), "number", "{}")


class After:
    """After a number."""

    def __init__(self, number: int = 0) -> None:
        self._number = number

    def start(self, _: Sequence[LiveEvent]) -> int:
        """From the first."""
        return 0

    def is_news(self, event: LiveEvent) -> bool:
        """Whether it is a larger one."""
        return int(event.id) > self._number


async def test_all_listeners_hear_what_one_source_tells() -> None:
    """Who comes later hears the earlier events too, or those after the last that they had."""
    source, another, known = Numbers(), Numbers(), Feeds(9)
    first = await known.of("it", source).listen(After())
    source.queue.put_nowait(1)
    source.queue.put_nowait(2)
    assert first is not None
    told = first.news()
    assert ["1", "2"] == [(await anext(told)).id, (await anext(told)).id]

    second = await known.of("it", another).listen(After(1))
    assert second is not None
    source.queue.put_nowait(3)
    source.queue.put_nowait(None)

    assert ["2", "3"] == [each.id async for each in second.news()]
    assert ["3"] == [each.id async for each in told]
    assert (1, 0) == (source.begun, another.begun)


async def test_who_has_heard_all_of_what_is_over_hears_nothing() -> None:
    """Who has not, hears the rest; each time the source is asked anew."""
    for last, expected in ((2, None), (1, ["2"])):
        source, known = Numbers(is_over=True), Feeds(9)
        for number in (1, 2, None):
            source.queue.put_nowait(number)
        listener = await known.of("it", source).listen(After(last))
        heard = listener and [each.id async for each in listener.news()]
        assert expected == heard


async def test_what_the_source_raises_all_get() -> None:
    """And nothing is left of it."""
    known = Feeds(9)
    for _ in range(2):
        with pytest.raises(TaskNotFound):
            await known.of("it", Numbers(error=TaskNotFound("it"))).listen(After())


async def test_a_feed_ends_when_nobody_has_listened_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who comes back before finds it as it was."""
    monkeypatch.setattr(feeds, "LINGER_SECONDS", 0.05)
    source, known = Numbers(), Feeds(9)
    feed = known.of("it", source)
    first = await feed.listen(After())
    second = await feed.listen(After())
    assert first is not None
    assert second is not None
    first.close()
    first.close()
    second.close()
    third = await known.of("it", Numbers()).listen(After())
    assert third is not None
    await asyncio.sleep(0.1)
    assert not feed.is_done
    third.close()
    async with asyncio.timeout(5):
        while not feed.is_done:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert 1 == source.begun
    assert feed is not known.of("it", Numbers())
    assert 1 == len(known)


async def test_what_nobody_listens_to_makes_room() -> None:
    """The oldest first; what somebody listens to stays."""
    known = Feeds(2)
    kept = await known.of("kept", Numbers()).listen(After())
    left = known.of("left", Numbers())
    listener = await left.listen(After())
    assert kept is not None
    assert listener is not None
    listener.close()
    assert left is known.of("left", Numbers())

    await known.of("new", Numbers()).listen(After())

    assert 2 == len(known)
    async with asyncio.timeout(5):
        while not left.is_done:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
