"""A workflow that does what the fleet does when an agent is available again."""

from datetime import timedelta
from typing import Any

from temporalio import workflow


@workflow.defn(name="Recovery")
class Recovery:
    """Redrives one agent's dead letters, by the activity's name."""

    @workflow.run
    async def run(self, order: dict[str, Any]) -> Any:
        """The activity's result."""
        return await workflow.execute_activity(
            "redrive_agent",
            order,
            task_queue="orchestrator",
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=10),
        )
