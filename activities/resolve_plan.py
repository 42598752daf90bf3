"""Resolve the routes of tasks that were started without them: by hand, or by another workflow."""

from temporalio import activity
from temporalio.exceptions import ApplicationError

from orchestrator.batches import Batch
from orchestrator.batching import Intake, most_text_bytes
from orchestrator.engine.converter import INVALID_INPUT
from orchestrator.errors import UnknownPattern
from orchestrator.models import Plan, Task
from orchestrator.routing import Routes

LISTED = 20
"""So many mistakes of a batch are named."""


class PlanResolver:
    """The activities with the routes that they resolve from."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes

    @activity.defn
    async def resolve_plan(self, task: Task) -> Plan:
        """The plan by the configuration of this process.

        Raises:
            ApplicationError: of type UnknownPattern, as no retry will know it.
        """
        try:
            return self.routes.plan(task)
        except UnknownPattern as error:
            raise ApplicationError(
                str(error), type=UnknownPattern.__name__, non_retryable=True
            ) from None

    @activity.defn
    async def plan_batch(self, batch: Batch) -> Batch:
        """The same batch with every item routed.

        Raises:
            ApplicationError: of type InvalidInput: some cannot be routed, or all together are too
                large for one workflow.
        """
        settings = self.routes.settings
        most, text_bytes = settings.limits.max_payload_bytes, most_text_bytes(settings)
        intake = Intake(self.routes, most, max_text_bytes=text_bytes)
        for request in batch.tasks or ():
            intake.add(request)
        if intake.bad:
            lines = [f"tasks.{each.index}: {each.message}" for each in intake.bad[:LISTED]]
            raise _invalid(f"{intake.bad_items} items are wrong: " + "; ".join(lines))
        info = activity.info()
        parts = intake.parts(
            batch.batch_id or info.workflow_id or "",
            intake.plans,
            self.routes.settings.rate_limit,
            batch.created_at or info.scheduled_time,
            batch.traceparent,
        )
        if not parts:
            raise _invalid('No tasks were given; pass {"tasks": [{"pattern": ..., "payload": {}}]}')
        if len(parts) > 1:
            raise _invalid(
                "The tasks are too large for one workflow; hand them in by POST /orchestrate/batch"
            )
        return parts[0]


def _invalid(text: str) -> ApplicationError:
    return ApplicationError(text, type=INVALID_INPUT, non_retryable=True)
