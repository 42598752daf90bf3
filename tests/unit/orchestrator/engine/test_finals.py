"""What is kept of runs that have ended."""

from datetime import UTC, datetime

from orchestrator.engine.finals import CERTAIN_SECONDS, Finals
from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus


def final(task_id: str, state: TaskState = TaskState.COMPLETED) -> TaskStatus:
    """The status of a task that has ended."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return TaskStatus(task_id=task_id, status=state, result={}, created_at=now, updated_at=now)


def test_a_final_status_is_kept_by_its_run() -> None:
    """Another run of the same task is not known by it."""
    finals = Finals()
    finals.keep("run-1", final("a"), 100)
    assert final("a") == finals.of("run-1")
    assert finals.of("run-2") is None


def test_large_results_are_not_kept() -> None:
    """Memory is bounded by bytes and not only by number."""
    finals = Finals(most_bytes=100)
    finals.keep("run-1", final("a"), 101)
    assert finals.of("run-1") is None


def test_the_run_that_nobody_asked_for_longest_goes_first() -> None:
    """As many are kept as may be."""
    finals = Finals(most=2)
    finals.keep("run-1", final("a"), 1)
    finals.keep("run-2", final("b"), 1)
    finals.of("run-1")
    finals.keep("run-3", final("c"), 1)
    assert ["run-1", "run-3"] == [run for run in ("run-1", "run-2", "run-3") if finals.of(run)]


def test_a_completed_task_is_certain_for_a_second() -> None:
    """After that the engine is asked whether the run is still the last."""
    now = 0.0
    finals = Finals(clock=lambda: now)
    finals.keep("run-1", final("a"), 1)
    assert finals.certain("a") == final("a")
    now = CERTAIN_SECONDS
    assert finals.certain("a") is None
    finals.of("run-1")
    assert finals.certain("a") == final("a")


def test_a_failed_task_is_never_certain() -> None:
    """It may be redriven at any moment, by another process too."""
    finals = Finals()
    finals.keep("run-1", final("a", TaskState.FAILED), 1)
    finals.of("run-1")
    assert finals.certain("a") is None
