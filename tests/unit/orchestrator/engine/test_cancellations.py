"""The engine's query for the tasks that an order to cancel many means."""

from datetime import UTC, datetime

from orchestrator.cancellations import CancellationFilter
from orchestrator.engine.cancellations import query

OPEN = "ExecutionStatus IN ('Running', 'Paused')"


def test_without_a_filter_all_open_tasks_are_meant() -> None:
    """And no other workflows, nor tasks that have ended."""
    assert f"WorkflowType = 'OrchestrateTask' AND {OPEN}" == query(CancellationFilter())


def test_each_field_is_a_condition() -> None:
    """Quoted, with the times in UTC."""
    chosen = CancellationFilter(
        agent="a",
        pattern="o'hara",
        tenant="t",
        priority=5,
        batch="b",
        since=datetime(2026, 1, 15, tzinfo=UTC),
        until=datetime(2026, 1, 16, tzinfo=UTC),
    )
    expected = (
        "WorkflowType = 'OrchestrateTask'",
        "OrchestratorAgent = 'a'",
        "OrchestratorPattern = 'o\\'hara'",
        "OrchestratorTenant = 't'",
        "OrchestratorBatch = 'b'",
        "OrchestratorPriority = 5",
        OPEN,
        "StartTime >= '2026-01-15T00:00:00+00:00'",
        "StartTime < '2026-01-16T00:00:00+00:00'",
    )
    assert " AND ".join(expected) == query(chosen)
