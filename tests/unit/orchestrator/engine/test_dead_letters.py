"""The engine's query for dead letters."""

from datetime import UTC, datetime

from orchestrator.dead_letters import DeadLetterFilter
from orchestrator.engine.dead_letters import query

OPEN = "WorkflowType = 'DeadLetter' AND ExecutionStatus = 'Running'"


def test_without_a_filter_all_that_wait_are_meant() -> None:
    """And no others."""
    assert OPEN == query(DeadLetterFilter())


def test_each_field_is_a_condition() -> None:
    """Quoted, with the times in UTC."""
    chosen = DeadLetterFilter(
        agent="a",
        pattern="o'hara",
        tenant="t",
        batch="b",
        priority=5,
        error_type="AgentFailed",
        since=datetime(2026, 1, 15, tzinfo=UTC),
        until=datetime(2026, 1, 16, tzinfo=UTC),
    )
    expected = (
        OPEN,
        "OrchestratorAgent = 'a'",
        "OrchestratorPattern = 'o\\'hara'",
        "OrchestratorTenant = 't'",
        "OrchestratorBatch = 'b'",
        "OrchestratorErrorType = 'AgentFailed'",
        "OrchestratorPriority = 5",
        "StartTime >= '2026-01-15T00:00:00+00:00'",
        "StartTime < '2026-01-16T00:00:00+00:00'",
    )
    assert " AND ".join(expected) == query(chosen)
