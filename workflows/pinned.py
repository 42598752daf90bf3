"""Workflows that the engine leaves to the version that has begun them."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from temporalio.common import VersioningBehavior
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner


class PinningRunner(WorkflowRunner):
    """Runs workflows by another runner, and pins those of some types to their version.

    A decorator cannot say it: the engine refuses a worker that does, where versions are off.
    """

    def __init__(self, runner: WorkflowRunner, types: Collection[str]) -> None:
        self._runner = runner
        self._types = types
        self._pinned: dict[str, Any] = {}

    def prepare_workflow(self, defn: Any) -> None:
        """As the other runner; called once for each type."""
        if defn.name in self._types:
            self._pinned[defn.name] = replace(defn, versioning_behavior=VersioningBehavior.PINNED)
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """As the other runner."""
        if pinned := self._pinned.get(det.info.workflow_type):
            det = replace(det, defn=pinned)
        return self._runner.create_instance(det)
