"""Which workflows are left to the version that has begun them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio import workflow
from temporalio.common import VersioningBehavior
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from workflows.hosting import PINNED, WORKFLOWS
from workflows.pinned import PinningRunner


class Noting(WorkflowRunner):
    """Makes nothing, and notes of what it should have."""

    def __init__(self) -> None:
        self.prepared: list[str] = []

    def prepare_workflow(self, defn: Any) -> None:
        """Note it."""
        self.prepared.append(defn.name)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """What it should be made of."""
        return cast("WorkflowInstance", det)


@pytest.mark.parametrize("kind", WORKFLOWS)
def test_tasks_and_batches_are_pinned_and_nothing_else(kind: type) -> None:
    """What may be open for months is never left to a version of long ago."""
    defn = workflow._Definition.must_from_class(kind)
    noting = Noting()
    runner = PinningRunner(noting, PINNED)
    runner.prepare_workflow(defn)
    details = WorkflowInstanceDetails(
        **dict.fromkeys(WorkflowInstanceDetails.__dataclass_fields__),  # type: ignore[arg-type]
    )
    object.__setattr__(details, "defn", defn)
    object.__setattr__(details, "info", SimpleNamespace(workflow_type=defn.name))
    made = cast("WorkflowInstanceDetails", runner.create_instance(details))
    pinned = made.defn.versioning_behavior is VersioningBehavior.PINNED
    assert pinned == (defn.name in {"OrchestrateTask", "TaskBatch"})
    assert [defn.name] == noting.prepared
