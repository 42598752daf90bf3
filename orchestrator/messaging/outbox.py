"""The way of events and replies: to the broker at once, or by the engine where that fails.

What the broker has not confirmed in time is handed to the engine as a workflow, which sends it as
soon as the broker is back. So whoever tells something waits for neither an outage nor its end.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import Client

from orchestrator.engine.rpc import engine_call
from orchestrator.errors import BrokerUnavailable
from orchestrator.messaging.events import PUBLISH_WORKFLOW, News
from orchestrator.messaging.publishers import Publisher
from orchestrator.routing import WORKFLOW_QUEUE
from orchestrator.telemetry.logging import get_logger

CONFIRM_SECONDS = 2.0
"""How long the broker may take before the engine is asked instead."""
REST_SECONDS = 5.0
"""How long a broker that has failed is then left alone."""
MOST_BYTES = 1_000_000
"""Of one workflow's input; what is larger has one of its own."""

MOST_UNTOLD = 10_000
"""What is told beside other work and under way; more than that is lost."""
DRAIN_SECONDS = 5.0
"""How long a process that ends waits for what is under way."""

HandOver = Callable[[News], Awaitable[None]]

log = get_logger(__name__)


class Outbox:
    """Sends news of this process; ``publisher`` is None where this process has no broker."""

    def __init__(
        self,
        publisher: Publisher | None,
        hand_over: HandOver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._hand_over = hand_over
        self._clock = clock
        self._rests_until = float("-inf")
        self._waiting: list[tuple[News, int, asyncio.Future[None]]] = []
        self._handing: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()

    async def send(self, news: News) -> None:
        """Returns once broker or engine have it.

        Raises:
            EngineUnavailable: neither has, as far as is known.
        """
        if not await self._published(news):
            await self._handed_over(news)

    def tell(self, news: News) -> None:
        """Send what is told beside some work, which neither waits nor fails for it."""
        if len(self._telling) >= MOST_UNTOLD:
            log.error("events_lost", types=_types(news), reason="too many are under way")
            return
        telling = asyncio.create_task(self._tell(news))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, news: News) -> None:
        try:
            await self.send(news)
        except Exception:
            log.exception("events_lost", types=_types(news))

    async def close(self) -> None:
        """Wait for what is under way, but not for long; the publisher is closed by its owner."""
        if not self._telling:
            return
        _, late = await asyncio.wait(self._telling, timeout=DRAIN_SECONDS)
        for each in late:
            each.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if late:
            log.error("events_lost", count=len(late), reason="the process ends")

    async def _published(self, news: News) -> bool:
        if self._publisher is None or self._clock() < self._rests_until:
            return False
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._publisher.publish(news)
        except (BrokerUnavailable, TimeoutError) as error:
            self._rests_until = self._clock() + REST_SECONDS
            reason = str(error) or "no confirmation in time"
            log.warning("events_delayed", error=reason, advice="the engine keeps them meanwhile")
            return False
        return True

    async def _handed_over(self, news: News) -> None:
        """Together with what others hand over at the same time."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((news, len(news.model_dump_json()), done))
        if self._handing is None or self._handing.done():
            self._handing = asyncio.create_task(self._hand_all_over())
        await asyncio.shield(done)

    async def _hand_all_over(self) -> None:
        while self._waiting:
            news, size, done = self._waiting.pop(0)
            together = [done]
            while self._waiting and size + self._waiting[0][1] <= MOST_BYTES:
                more, further, done = self._waiting.pop(0)
                news, size = news.plus(more), size + further
                together.append(done)
            try:
                await self._hand_over(news)
            except Exception as error:  # noqa: BLE001 - it is raised to all that wait for it
                for each in together:
                    each.set_exception(error)
                    each.exception()
            else:
                for each in together:
                    each.set_result(None)


def _types(news: News) -> list[str]:
    return [each.type for each in news.events]


def by_workflow(client: Client, rpc_timeout: float) -> HandOver:
    """Hand news over to the engine."""
    deadline = timedelta(seconds=rpc_timeout)

    async def hand_over(news: News) -> None:
        async with engine_call(deadline):
            await client.start_workflow(
                PUBLISH_WORKFLOW,
                news,
                id=f"events/{uuid.uuid4()}",
                task_queue=WORKFLOW_QUEUE,
                static_summary=f"{len(news.events)} events, {len(news.answers)} replies",
                rpc_timeout=deadline,
            )

    return hand_over
