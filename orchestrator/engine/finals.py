"""Final statuses that were read last: reading one again costs one call to the engine, or none."""

import time
from collections import OrderedDict
from collections.abc import Callable

from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus

MOST_FINALS = 1000
MOST_BYTES = 4096
"""Of a closing event, most of which is the task's result; larger ones are read again."""
CERTAIN_SECONDS = 1.0
"""For so long what the engine said of a completed task is not asked again."""


class Finals:
    """The statuses that were read last, by the engine's id of the run.

    A run that has ended stays as it is. A task that is redriven goes on as a run of another id, so
    whoever asks by the run has the task described first. A completed task is not redriven; only an
    operator of the engine can reset it, which is seen after ``CERTAIN_SECONDS``.
    """

    def __init__(
        self,
        most: int = MOST_FINALS,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._statuses: OrderedDict[str, TaskStatus] = OrderedDict()
        self._certain: OrderedDict[str, tuple[float, TaskStatus]] = OrderedDict()

    def certain(self, task_id: str) -> TaskStatus | None:
        """The status of a task that the engine has just described as completed."""
        until, status = self._certain.get(task_id, (0.0, None))
        return status if self._clock() < until else None

    def of(self, run_id: str) -> TaskStatus | None:
        """The final status of a run, if it is known."""
        found = self._statuses.get(run_id)
        if found is not None:
            self._statuses.move_to_end(run_id)
            self._confirm(found)
        return found

    def keep(self, run_id: str, status: TaskStatus, size: int = 0) -> None:
        """Keep the status of a run whose last event has so many bytes, unless those are many."""
        if size > self._most_bytes:
            return
        self._statuses[run_id] = status
        self._statuses.move_to_end(run_id)
        if len(self._statuses) > self._most:
            self._statuses.popitem(last=False)
        self._confirm(status)

    def _confirm(self, status: TaskStatus) -> None:
        if status.status is not TaskState.COMPLETED:
            return
        self._certain[status.task_id] = self._clock() + CERTAIN_SECONDS, status
        self._certain.move_to_end(status.task_id)
        if len(self._certain) > self._most:
            self._certain.popitem(last=False)
