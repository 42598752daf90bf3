"""Cancelling items of a chunk that is under way: its batch's workflow says which are unwanted.

The engine can only ask an activity, once, to end as a whole. So that is how a chunk hears that some
of its items may be unwanted; from then on it asks the workflow itself, again and again.
"""

import asyncio
import time
from datetime import timedelta

from temporalio import activity
from temporalio.client import WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from activities.chunk_course import BEGIN_SECONDS, Course
from orchestrator.batches import UNWANTED, Chunk, Unwanted
from orchestrator.engine.rpc import names_missing_namespace

ASK_SECONDS = 1.0
ANSWER_TIMEOUT = timedelta(seconds=5)
EVERYTHING = Unwanted(everything=True)


class Cancellable:
    """A chunk's course, of which items are left off as they are cancelled.

    ``grace_seconds`` are what calls in flight may take once the worker is to stop.
    """

    def __init__(self, chunk: Chunk, course: Course, grace_seconds: float) -> None:
        self.everything = False
        """The whole chunk is unwanted."""
        self._chunk = chunk
        self._course = course
        self._grace_seconds = grace_seconds
        self._stops_at: float | None = None

    async def run(self) -> None:
        """Make the calls.

        Raises:
            asyncio.CancelledError: those that are left are not to be made here.
        """
        if self._chunk.asks and not await self._has_heard():
            return
        # A task of its own, so that a cancellation of the activity does not cut it off.
        work = asyncio.create_task(self._course.run())
        try:
            if self._chunk.asks or await self._was_interrupted(work):
                await self._ask_during(work)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _has_heard(self) -> bool:
        """Ask before anything is begun; False if there was no answer in time."""
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                answered = await self._heeds()
                while not answered:
                    await asyncio.sleep(ASK_SECONDS)
                    answered = await self._heeds()
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            self.everything = is_cancel_requested()
            raise
        if self.everything:
            raise asyncio.CancelledError
        return True

    async def _was_interrupted(self, work: asyncio.Task[None]) -> bool:
        """Wait for the end of the work; True if somebody wishes to cancel some or all of it."""
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if not is_cancel_requested():
                raise
            return True
        return False

    async def _ask_during(self, work: asyncio.Task[None]) -> None:
        """Leave off what is unwanted, until the work is done or nothing of it is to go on."""
        asking = asyncio.create_task(self._keep_asking())
        try:
            await asyncio.wait([work, asking], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # One that asks by itself is only cancelled with its batch, or with its worker.
            self.everything = self._chunk.asks and is_cancel_requested()
            raise
        finally:
            asking.cancel()
        if not work.done():
            asking.result()
            raise asyncio.CancelledError
        await work

    async def _keep_asking(self) -> None:
        """Until everything is unwanted, or the worker may wait no longer."""
        while not self._grace_is_over():
            await self._heeds()
            if self.everything:
                break
            await asyncio.sleep(ASK_SECONDS)

    async def _heeds(self) -> bool:
        """Ask, and leave off what is unwanted; False where nobody answers."""
        answer = await self._ask()
        if answer is not None:
            self.everything = answer.everything
            self._course.drop(answer.positions)
        return answer is not None

    def _grace_is_over(self) -> bool:
        """The engine cuts off what outlasts a worker's grace, but nothing that it has told once."""
        if activity.is_worker_shutdown() and self._stops_at is None:
            self._stops_at = time.monotonic() + self._grace_seconds
        return self._stops_at is not None and time.monotonic() >= self._stops_at

    async def _ask(self) -> Unwanted | None:
        """What is unwanted now; None where nobody answers."""
        info = activity.info()
        handle = activity.client().get_workflow_handle(
            info.workflow_id or "", run_id=info.workflow_run_id
        )
        try:
            answer: Unwanted = await handle.query(
                UNWANTED,
                list(self._chunk.positions),
                result_type=Unwanted,
                reject_condition=QueryRejectCondition.NOT_OPEN,
                rpc_timeout=ANSWER_TIMEOUT,
            )
        except WorkflowQueryRejectedError:
            return EVERYTHING
        except WorkflowQueryFailedError:
            return None
        except RPCError as error:
            gone = error.status is RPCStatusCode.NOT_FOUND and not names_missing_namespace(error)
            return EVERYTHING if gone else None
        return answer


def is_cancel_requested() -> bool:
    """Whether the activity is cancelled by a wish, rather than because its worker ends."""
    details = activity.cancellation_details()
    return details is not None and details.cancel_requested
