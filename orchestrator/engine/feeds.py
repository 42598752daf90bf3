"""Events that are followed once, for however many listen.

What a feed has told it keeps, so that who comes back goes on where they had stopped. It ends when
there is nothing more to come, or when nobody has listened for a while.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from orchestrator.events import LiveEvent
from orchestrator.telemetry.logging import get_logger

LINGER_SECONDS = 30.0
"""A feed goes on for so long after its last listener has left, who may come back."""

log = get_logger(__name__)


class Source(Protocol):
    """What a feed is about."""

    async def begin(self) -> bool:
        """Look for it; whether it has ended already.

        Raises:
            OrchestratorError: there is no such thing, or the engine does not answer.
        """

    def events(self) -> AsyncIterator[LiveEvent]:
        """All that happens until the end, from the beginning."""


class Place(Protocol):
    """Where a listener had stopped."""

    def start(self, told: Sequence[LiveEvent], /) -> int:
        """The index of the first of what was told that is worth a look."""

    def is_news(self, event: LiveEvent) -> bool:
        """Whether the listener has yet to hear it."""


class Feed:
    """One source, followed as long as somebody listens."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._told: list[LiveEvent] = []
        self._changed = asyncio.Event()
        self._listeners = 0
        self._leaving: asyncio.TimerHandle | None = None
        self._begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._following = asyncio.create_task(self._follow())

    @property
    def is_done(self) -> bool:
        """Whether it follows no more."""
        return self._following.done()

    @property
    def is_lingering(self) -> bool:
        """Whether it only waits for somebody to come back."""
        return self._leaving is not None

    def stop(self) -> None:
        """Follow no more."""
        if self._leaving is not None:
            self._leaving.cancel()
        self._following.cancel()

    async def listen(self, place: Place) -> "Listener | None":
        """Listen to what is new from that place; None where all is over, and nothing new.

        Raises:
            OrchestratorError: as ``Source.begin`` does.
        """
        listener = Listener(self, place)
        try:
            if await asyncio.shield(self._begun):
                await asyncio.wait({self._following})
                news = self._told[place.start(self._told) :]
                if not any(map(place.is_news, news)):
                    listener.close()
                    return None
        except BaseException:
            listener.close()
            raise
        return listener

    async def news(self, place: Place) -> AsyncIterator[LiveEvent]:
        """What is new from that place, as it happens, until the end."""
        index = place.start(self._told)
        while True:
            while index < len(self._told):
                event = self._told[index]
                index += 1
                if place.is_news(event):
                    yield event
            if self.is_done:
                return
            await self._changed.wait()

    async def _follow(self) -> None:
        try:
            self._begun.set_result(await self._source.begin())
            async for event in self._source.events():
                self._told.append(event)
                self._wake()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if self._begun.done():
                log.exception("feed_broke")
            else:
                self._begun.set_exception(error)
                self._begun.exception()
        finally:
            # Those who wait must see that it is done, which it is a moment later.
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def join(self) -> None:
        """One more listens."""
        self._listeners += 1
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def leave(self) -> None:
        """One listens no more."""
        self._listeners -= 1
        if not self._listeners and not self.is_done:
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_later(LINGER_SECONDS, self._following.cancel)


class Listener:
    """Somebody who listens to a feed; to be closed when they leave."""

    def __init__(self, feed: Feed, place: Place) -> None:
        self._feed = feed
        self._place = place
        self._is_open = True
        feed.join()

    def news(self) -> AsyncIterator[LiveEvent]:
        """What is new to them, as it happens, until the end."""
        return self._feed.news(self._place)

    def close(self) -> None:
        """They leave."""
        if self._is_open:
            self._is_open = False
            self._feed.leave()


class Feeds:
    """The feeds that are followed, by what they are about.

    Args:
        most: of them; those that nobody listens to make room for others, the oldest first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._feeds: dict[str, Feed] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    def of(self, key: str, source: Source) -> Feed:
        """The feed that is followed under that key, or a new one of the source."""
        for name in [name for name, feed in self._feeds.items() if feed.is_done]:
            del self._feeds[name]
        if key not in self._feeds:
            self._make_room()
            self._feeds[key] = Feed(source)
        return self._feeds[key]

    def _make_room(self) -> None:
        lingering = [name for name, feed in self._feeds.items() if feed.is_lingering]
        for name in lingering[: max(0, len(self) - self._most + 1)]:
            self._feeds.pop(name).stop()
