"""Trace ids that are made of task ids."""

from orchestrator.traces import trace_id_of


def test_the_trace_of_a_task_is_its_own_id() -> None:
    """Where that is a UUID."""
    task_id = "3f1c9a52-6a2b-4f0e-9d3b-0c6a5a1c7e10"
    assert "3f1c9a526a2b4f0e9d3b0c6a5a1c7e10" == trace_id_of(task_id)


def test_the_trace_of_any_other_id_is_always_the_same() -> None:
    """In all processes, and in all versions: a trace must not fall apart in an upgrade."""
    assert "b280dc48d8d5587ebff9deab35dbbd3a" == trace_id_of("of-nobody")
