"""Many dead letters, redriven or discarded one after another at a bounded rate."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.heartbeats import HEARTBEAT_SECONDS
from orchestrator.dead_letters import (
    AUTOMATIC_RUNS,
    BulkAction,
    BulkOrder,
    BulkTally,
    DeadLetterFilter,
    DeadLetterOrder,
    RedriveAgent,
)
from orchestrator.engine.dead_letters import DeadLetters, FoundDeadLetter
from orchestrator.errors import (
    DeadLetterNotFound,
    EngineRefused,
    EngineUnavailable,
    OrderRefused,
)
from orchestrator.telemetry.logging import get_logger

PAGE = 50
"""As many are under way at once, at the most."""
ENGINE_PAUSE_SECONDS = 1.0
TRIES = 10
"""How often one is asked for that no worker carries out, while the engine answers: one that comes
back may need longer than a call waits."""

Result = TypeVar("Result")

log = get_logger(__name__)


class Redriver:
    """The activities with what they need: the engine's dead letters."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters

    @activity.defn
    async def redrive_many(self, order: BulkOrder) -> BulkTally:
        """Carry out an order about many; when it is cancelled, return how far it came.

        Each dead letter that was there at the start is resolved at most once, whichever worker
        goes on after a crash.
        """
        by = order.by or activity.info().workflow_id or ""
        return await self._carry_out(order, DeadLetterOrder(reason=order.reason, by=by))

    @activity.defn
    async def redrive_agent(self, order: RedriveAgent) -> BulkTally:
        """Redrive the dead letters of an agent that is available again.

        Those that an agent must not do twice, and those that failed too often, are left to people.
        """
        many = BulkOrder(
            action=BulkAction.REDRIVE,
            filter=DeadLetterFilter(agent=order.agent),
            rate=order.rate,
        )
        reason = f"agent {order.agent} is available again"
        words = DeadLetterOrder(reason=reason, by=activity.info().workflow_id or "")
        return await self._carry_out(many, words, _may_be_automatic)

    async def _carry_out(
        self,
        order: BulkOrder,
        words: DeadLetterOrder,
        wanted: Callable[[FoundDeadLetter], bool] = lambda _: True,
    ) -> BulkTally:
        chosen = _until(order.filter, activity.info().scheduled_time)
        course = _Course(self._dead_letters, order, words)
        try:
            async with _heartbeats(course):
                await course.resume(chosen)
                cursor: str | None = None
                while True:
                    found, cursor = await course.find(chosen, cursor)
                    chosen_ones = [each for each in found if wanted(each)]
                    course.skipped += len(found) - len(chosen_ones)
                    await course.resolve(chosen_ones)
                    if cursor is None:
                        break
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is None or not details.cancel_requested:
                raise _interrupted() from None
            return course.tally(cancelled=True)
        tally = course.tally()
        log.info("dead_letters_resolved", action=order.action, by=words.by, **tally.model_dump())
        return tally


class _Course:
    """How far one order has come, and the next steps."""

    def __init__(self, dead_letters: DeadLetters, order: BulkOrder, words: DeadLetterOrder) -> None:
        self._dead_letters = dead_letters
        self._order = order
        self._words = words
        self._pace = _Pace(order.rate)
        self._last_failure = ""
        details = activity.info().heartbeat_details
        before = BulkTally.model_validate(details[0]) if details else BulkTally()
        self._resumed = bool(details)
        self._matched = before.matched or order.matched
        self.done, self.skipped = before.done, before.skipped
        self.failed = 0

    def tally(self, *, cancelled: bool = False) -> BulkTally:
        """The numbers; lists lag, so more may have been found than were counted before."""
        return BulkTally(
            matched=max(self._matched, self.done + self.failed + self.skipped),
            done=self.done,
            failed=self.failed,
            skipped=self.skipped,
            last_failure=self._last_failure,
            cancelled=cancelled,
        )

    async def resume(self, chosen: DeadLetterFilter) -> None:
        """Take over from a worker that was lost: what is no longer there was its work.

        What was refused is still there and will be asked for again.
        """
        if self._resumed:
            left = await _patiently(lambda: self._dead_letters.count(chosen))
            self.done = max(self.done, self._matched - left - self.skipped)

    async def find(
        self, chosen: DeadLetterFilter, cursor: str | None
    ) -> tuple[list[FoundDeadLetter], str | None]:
        """The next page, and the cursor of the one after it."""
        found, following = await _patiently(lambda: self._dead_letters.find(chosen, PAGE, cursor))
        return list(found), following

    async def resolve(self, found: list[FoundDeadLetter]) -> None:
        """Resolve each, begun at the order's pace."""
        async with asyncio.TaskGroup() as group:
            for each in found:
                await self._pace.turn()
                group.create_task(self._resolve(each))

    async def _resolve(self, found: FoundDeadLetter) -> None:
        task_id, asked = found.item.task_id, False
        for _ in range(TRIES):
            try:
                await self._dead_letters.resolve(
                    self._order.action, task_id, self._words, found.run_id
                )
            except DeadLetterNotFound:
                # An order whose answer was lost may have been carried out.
                if asked:
                    self.done += 1
                else:
                    self.skipped += 1
                return
            except (OrderRefused, EngineRefused) as error:
                self._fail(task_id, str(error))
                return
            except EngineUnavailable as error:
                reason, asked = str(error), True
                # While the engine is away, nobody's tries are used up.
                await _patiently(lambda: self._dead_letters.count(self._order.filter))
            else:
                self.done += 1
                return
        self._fail(task_id, reason)

    def _fail(self, task_id: str, reason: str) -> None:
        self.failed += 1
        self._last_failure = f"{task_id}: {reason}"


class _Pace:
    """Lets one pass every ``1 / rate`` seconds."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for one's turn."""
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + self._interval
        await asyncio.sleep(at - now)


def _until(chosen: DeadLetterFilter, start: datetime) -> DeadLetterFilter:
    """Only what had failed when the order began: what fails anew is not redriven in a circle.

    The first dispatch's time is that of every later one, too.
    """
    until = min(chosen.until, start) if chosen.until else start
    return chosen.model_copy(update={"until": until})


def _may_be_automatic(found: FoundDeadLetter) -> bool:
    return found.repeatable and found.item.runs < AUTOMATIC_RUNS


async def _patiently(ask: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """The engine's answer, however long it is away."""
    while True:
        try:
            return await ask()
        except EngineUnavailable:
            await asyncio.sleep(ENGINE_PAUSE_SECONDS)


@asynccontextmanager
async def _heartbeats(course: _Course) -> AsyncIterator[None]:
    """Tell the engine how far it has come, which is also how a cancellation gets here."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            activity.heartbeat(course.tally())

    activity.heartbeat(course.tally())
    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()


def _interrupted() -> ApplicationError:
    """Let another worker go on at once; left cancelled, it would wait for a timeout."""
    return ApplicationError(
        "The worker was stopped before all were resolved",
        type="WorkerStopping",
        next_retry_delay=timedelta(milliseconds=1),
    )
