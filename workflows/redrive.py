"""RedriveDeadLetters: an order about many dead letters, carried out through crashes."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.redrive import Redriver
    from orchestrator.dead_letters import BULK_WORKFLOW, BulkOrder, BulkTally
    from workflows import options


@workflow.defn(name=BULK_WORKFLOW)
class RedriveDeadLetters:
    """Carries out one order; cancelling it leaves the rest as it is."""

    @workflow.run
    async def run(self, order: BulkOrder) -> BulkTally:
        """Redrive or discard what the order selects; how many it was."""
        workflow.set_current_details(
            f"**{order.action.capitalize()}** of {order.matched} dead letters, {order.rate:g} a "
            f"second{f': {order.reason}' if order.reason else ''}. Cancel this workflow to stop."
        )
        tally = await workflow.execute_activity_method(
            Redriver.redrive_many,
            order,
            start_to_close_timeout=options.LONGEST,
            heartbeat_timeout=options.HEARTBEAT_TIMEOUT,
            retry_policy=options.PATIENT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        workflow.set_current_details(
            f"**{order.action.capitalize()}**: {tally.done} done, {tally.failed} refused, "
            f"{tally.skipped} skipped of {tally.matched}"
            f"{'; cancelled' if tally.cancelled else ''}. {tally.last_failure}"
        )
        return tally
