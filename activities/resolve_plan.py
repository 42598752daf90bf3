"""The route of a task that was started without one: from the command line, the Web UI, a parent."""

from temporalio import activity
from temporalio.exceptions import ApplicationError

from orchestrator.errors import UnknownPattern
from orchestrator.models import Plan, Task
from orchestrator.routing import Routes


class PlanResolver:
    """The activity with the routes of this worker's configuration."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    @activity.defn
    async def resolve_plan(self, task: Task) -> Plan:
        """Resolve the task's plan.

        Raises:
            ApplicationError: UnknownPattern, not retryable.
        """
        try:
            return self._routes.plan(task)
        except UnknownPattern as error:
            raise ApplicationError(
                str(error), type=type(error).__name__, non_retryable=True
            ) from None
