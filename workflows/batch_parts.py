"""The further parts of a large batch, as the workflow of the first has them followed."""

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.follow_parts import PartsFollower
    from orchestrator.batches import BatchTally, Parts, part_id
    from workflows import options


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
