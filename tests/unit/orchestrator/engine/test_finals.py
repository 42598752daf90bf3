"""What is kept of runs that have ended."""

from datetime import UTC, datetime

from orchestrator.engine.finals import Finals
from orchestrator.models import TaskState, TaskStatus


def final(task_id: str) -> TaskStatus:
    """The status of a completed task."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return TaskStatus(
        task_id=task_id, status=TaskState.COMPLETED, result={}, created_at=now, updated_at=now
    )


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
