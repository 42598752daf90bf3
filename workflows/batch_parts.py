"""The parts of a large batch: the first has the further ones released, and followed."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.follow_parts import PartsFollower
    from orchestrator.batches import BatchTally, Parts, part_id
    from workflows import options

RELEASE_SECONDS = 600.0
"""A part that nobody releases for so long was never handed in as a whole."""
ABANDONED = "Abandoned"


async def be_released(is_released: Callable[[], bool]) -> None:
    """Wait, as a further part, until the batch was handed in as a whole.

    Raises:
        ApplicationError: it was not.
    """
    try:
        await workflow.wait_condition(
            is_released,
            timeout=timedelta(seconds=RELEASE_SECONDS),
            timeout_summary="handed in as a whole",
        )
    except TimeoutError:
        raise ApplicationError(
            "The batch was not handed in as a whole; nothing of this part was begun",
            type=ABANDONED,
            non_retryable=True,
        ) from None


async def follow(parts: Parts) -> BatchTally:
    """Let the parts begin; how they end. When this is cancelled, so are they."""
    try:
        return await _followed(parts)
    except FailureError as error:
        if not is_cancelled_exception(error):
            raise
    for part in range(1, parts.count):
        try:
            await workflow.get_external_workflow_handle(part_id(parts.batch_id, part)).cancel()
        except ApplicationError:
            continue  # it has ended
    return await _followed(parts)


async def _followed(parts: Parts) -> BatchTally:
    return await workflow.execute_activity_method(
        PartsFollower.follow_parts,
        parts,
        start_to_close_timeout=options.LONGEST,
        heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
        retry_policy=options.PATIENT,
        summary=f"{parts.count - 1} further parts",
    )


async def end_of(parts: asyncio.Task[BatchTally]) -> BatchTally:
    """How the parts have ended.

    Raises:
        asyncio.CancelledError: the batch was cancelled, and they were with it.
    """
    tally = await parts
    if tally.cancelled and workflow.cancellation_reason() is not None:
        # The cancellation went to what follows the parts, and ended there.
        raise asyncio.CancelledError
    return tally
