"""The further parts of a large batch: let them begin, and wait until they have ended."""

import asyncio
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import is_cancelled_exception
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeats import HEARTBEAT_SECONDS
from orchestrator.batches import MEMO_TALLY, RELEASE, BatchTally, Parts, part_id
from orchestrator.engine.rpc import names_missing_namespace

PAUSE_SECONDS = 1.0


class PartsFollower:
    """The activity with what it needs: the engine's client, each call of ``rpc_timeout`` s."""

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)

    @activity.defn
    async def follow_parts(self, parts: Parts) -> BatchTally:
        """Release every part and wait for all; how their items ended, together."""
        following = asyncio.gather(
            *(self._follow(part_id(parts.batch_id, part)) for part in range(1, parts.count))
        )
        try:
            while not following.done():
                activity.heartbeat()
                await asyncio.wait({following}, timeout=HEARTBEAT_SECONDS)
        finally:
            following.cancel()
        total = BatchTally()
        for tally in await following:
            total = total.plus(tally)
        return total

    async def _follow(self, workflow_id: str) -> BatchTally:
        handle: WorkflowHandle[object, BatchTally] = self._client.get_workflow_handle(
            workflow_id, result_type=BatchTally
        )
        while True:
            try:
                await self._release(handle)
                return await handle.result()
            except WorkflowFailureError as error:
                cancelled = is_cancelled_exception(error.cause)
                return await self._left_by(handle, "cancelled" if cancelled else "failed")
            except RPCError as error:
                if _is_absent(error):
                    # It was not released in time: nothing of it was begun.
                    return await self._left_by(handle, "failed")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _release(self, handle: WorkflowHandle[object, BatchTally]) -> None:
        try:
            await handle.signal(RELEASE, rpc_timeout=self._deadline)
        except RPCError as error:
            # It may have ended, when this activity is not the first to follow it.
            if not _is_absent(error):
                raise

    async def _left_by(self, handle: WorkflowHandle[object, BatchTally], rest: str) -> BatchTally:
        """What a part that was ended had counted; the ``rest`` of it has failed or is cancelled."""
        while True:
            try:
                memo = await (await handle.describe(rpc_timeout=self._deadline)).memo()
            except RPCError as error:
                if _is_absent(error):
                    return BatchTally()
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                tally = BatchTally.model_validate(memo.get(MEMO_TALLY, {}))
                return tally.model_copy(update={rest: getattr(tally, rest) + tally.pending})


def _is_absent(error: RPCError) -> bool:
    return error.status is RPCStatusCode.NOT_FOUND and not names_missing_namespace(error)
