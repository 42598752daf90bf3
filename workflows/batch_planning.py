"""The routes of a batch that comes as requests: by hand, or from another workflow."""

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities.resolve_plan import PlanResolver
    from orchestrator.batches import Batch
    from workflows import failures, options


async def planned(batch: Batch) -> Batch:
    """The same batch, routed.

    Raises:
        ApplicationError: it cannot be carried out.
    """
    try:
        found: Batch = await workflow.execute_local_activity_method(
            PlanResolver.plan_batch,
            batch,
            start_to_close_timeout=options.RESOLVE_TIMEOUT,
            retry_policy=options.RESOLVE_RETRY,
        )
    except FailureError as error:
        cause = failures.cause_of(error)
        if isinstance(cause, ApplicationError):
            raise ApplicationError(cause.message, type=cause.type, non_retryable=True) from None
        raise
    return found
