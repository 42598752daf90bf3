"""Statuses of runs that have ended, so that reading one again costs one call to the engine."""

from collections import OrderedDict

from orchestrator.models import TaskStatus

MOST_FINALS = 1000
MOST_BYTES = 4096
"""Of a closing event, most of which is the task's result; larger ones are read again."""


class Finals:
    """The statuses that were read last, by the engine's id of the run.

    A run that has ended stays as it is. A task that is redriven goes on as a run of another id, so
    whoever asks here has the task described first.
    """

    def __init__(self, most: int = MOST_FINALS, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._statuses: OrderedDict[str, TaskStatus] = OrderedDict()

    def of(self, run_id: str) -> TaskStatus | None:
        """The final status of a run, if it is known."""
        found = self._statuses.get(run_id)
        if found is not None:
            self._statuses.move_to_end(run_id)
        return found

    def keep(self, run_id: str, status: TaskStatus, size: int) -> None:
        """Keep the status of a run whose last event has so many bytes, unless those are many."""
        if size > self._most_bytes:
            return
        self._statuses[run_id] = status
        self._statuses.move_to_end(run_id)
        if len(self._statuses) > self._most:
            self._statuses.popitem(last=False)
