"""Many calls in one activity: one attempt for each item of a chunk.

An item that needs more than that goes on as a task of its own, with all that tasks can do. So a
chunk waits for nothing: it begins calls for some seconds, as many at once as the agent's slots in
this process allow, and gives back what it did not begin.

Its heartbeats carry the outcomes until then: after a crash only what was in flight is repeated.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.call_agent import LOOK_AGAIN_SECONDS
from activities.chunk_cancellation import Cancellable, is_cancel_requested
from activities.chunk_course import Course
from activities.chunk_means import Means
from activities.chunk_report import Ledger
from activities.heartbeats import HEARTBEAT_SECONDS
from activities.outcomes import UNAVAILABLE
from orchestrator.batches import RUN_CHUNK, Chunk, ChunkReport, Unfinished
from orchestrator.errors import AgentUnavailable
from orchestrator.models import BlockedBy, CallFailure, Progress
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger

MOST_LOST = 1
"""After more lost workers the rest go on alone: one of them may be what ends the workers."""

EARLY_BEATS = 2
"""After so many heartbeats, and again, the batch of single tasks is told of those that ended."""

log = get_logger(__name__)


class ChunkCalls:
    """The activity with what it needs."""

    def __init__(self, means: Means) -> None:
        self._means = means

    @activity.defn(name=RUN_CHUNK)
    async def run_chunk(self, chunk: Chunk) -> ChunkReport:
        """Call the agent once for each item; what was not begun comes back as ``left``.

        Items that are cancelled meanwhile are left off, and their calls cut off; so are all when
        the batch is cancelled, and the report says so.

        Raises:
            ApplicationError: of type AgentUnavailable where nothing could be begun.
        """
        ledger = Ledger(chunk)
        # The other dispatches left no word: their worker was lost.
        lost = activity.info().attempt - 1 - ledger.waits
        course = Course(self._means, chunk, ledger, lost)
        cancellable = Cancellable(chunk, course, self._means.grace_seconds)
        if lost > MOST_LOST:
            for position in course.rest:
                ledger.go_on(Unfinished(position=position, progress=Progress()))
            return ledger.known()
        try:
            async with _heartbeats(ledger, early=chunk.paid):
                await cancellable.run()
                await ledger.flush()
        except asyncio.CancelledError:
            await ledger.flush()
            if cancellable.everything:
                return ledger.known(cancelled=course.rest)
            return ledger.known(left=course.rest)
        except Exception:
            log.exception("chunk_broke", batch_id=chunk.batch_id, agent=chunk.plan.agent)
            activity.heartbeat(ledger.known())
            raise
        refusal = course.refusal
        # What the engine was asked to cancel it lets come no more.
        if refusal and not course.begun and course.rest and not is_cancel_requested():
            # A rate is waited for, whichever other agents there are.
            wait = chunk.wait or refusal.blocked_by is BlockedBy.RATE_LIMIT
            if wait or ledger.is_empty:
                raise _come_again(ledger, refusal, wait=wait)
        return ledger.known(left=course.rest)


def _come_again(ledger: Ledger, refusal: AgentUnavailable, *, wait: bool) -> ApplicationError:
    """Nothing was begun: let the engine wait, or another agent be asked."""
    seconds = LOOK_AGAIN_SECONDS if refusal.retry_after is None else refusal.retry_after
    pause = max(0.001, seconds)
    metrics.agent_call_wait(refusal.agent, refusal.blocked_by)
    if wait:
        activity.heartbeat(ledger.known(waits=1))
    return ApplicationError(
        str(refusal),
        CallFailure(
            progress=Progress(), retryable=True, pause=pause, blocked_by=refusal.blocked_by
        ),
        type=UNAVAILABLE,
        non_retryable=not wait,
        next_retry_delay=timedelta(seconds=pause),
    )


@asynccontextmanager
async def _heartbeats(ledger: Ledger, *, early: bool) -> AsyncIterator[None]:
    """Tell the engine what is done, which is also how a cancellation gets here.

    Of single tasks that wait for a slow one of their chunk the batch is told ``early``.
    """

    async def beat() -> None:
        beats = 0
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            activity.heartbeat(ledger.known())
            beats += 1
            if early and beats % EARLY_BEATS == 0:
                await ledger.hand_over()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
