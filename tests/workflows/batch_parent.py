"""Somebody else's workflow, which knows batches only by a name and a queue."""

from typing import Any

from temporalio import workflow


@workflow.defn(name="Term")
class Term:
    """Runs a batch as its child."""

    @workflow.run
    async def run(self, given: dict[str, Any]) -> Any:
        """Start the child with plain JSON and return what it returned."""
        return await workflow.execute_child_workflow(
            "TaskBatch",
            given,
            task_queue="orchestrator",
            id=f"{workflow.info().workflow_id}/homework",
        )
