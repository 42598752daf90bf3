"""Somebody else's workflows, which know this project only by names and a queue."""

from typing import Any

from temporalio import workflow


@workflow.defn(name="Lesson")
class Lesson:
    """Runs one task as its child."""

    @workflow.run
    async def run(self, given: dict[str, Any]) -> Any:
        """Start the child with plain JSON and return what it returned."""
        return await workflow.execute_child_workflow(
            "OrchestrateTask",
            given,
            task_queue="orchestrator",
            id=f"{workflow.info().workflow_id}/1",
        )


@workflow.defn(name="Gathering")
class Gathering:
    """Joins tasks by a child."""

    @workflow.run
    async def run(self, given: dict[str, Any]) -> Any:
        """Start the child with plain JSON and return what it returned."""
        return await workflow.execute_child_workflow(
            "AggregateTasks",
            given,
            task_queue="orchestrator",
            id=f"{workflow.info().workflow_id}/joined",
        )
