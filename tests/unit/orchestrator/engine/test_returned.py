"""Which outcomes of tasks that ended here may stand for the engine's."""

from typing import Any, cast

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.client import WorkflowExecutionStatus

from orchestrator.engine.returned import MOST_CHARACTERS, MOST_VALUES, Returned
from orchestrator.models import TaskOutcome


def outcome(result: Any = None) -> TaskOutcome:
    """One with this result."""
    return TaskOutcome(agent="a", result=result, attempts=1)


def described(
    events: int, status: WorkflowExecutionStatus = WorkflowExecutionStatus.COMPLETED
) -> WorkflowExecutionInfo:
    """A run of so many events, as the engine describes it."""
    return WorkflowExecutionInfo(
        execution=WorkflowExecution(workflow_id="task", run_id="run"),
        status=cast("Any", status.value),  # the engine's number
        history_length=events,
    )


@pytest.mark.parametrize(("before", "events"), [(3, 5), (3, 6), (9, 11), (9, 13)])
def test_an_outcome_counts_for_the_step_that_returned_it(before: int, events: int) -> None:
    """The task has completed, and what was added is that step's end."""
    returned = Returned()
    returned.keep("run", before, outcome(1))
    assert returned.take(described(events)) == outcome(1)


@pytest.mark.parametrize("events", [3, 8, 9, 12])
def test_an_end_that_the_engine_did_not_take_counts_for_nothing(events: int) -> None:
    """The step failed or timed out, was scheduled and begun again, and ended: five events more."""
    returned = Returned()
    returned.keep("run", 3, outcome(1))
    assert returned.take(described(events)) is None


@pytest.mark.parametrize(
    "status",
    [each for each in WorkflowExecutionStatus if each is not WorkflowExecutionStatus.COMPLETED],
)
def test_another_end_is_read_from_the_engine(status: WorkflowExecutionStatus) -> None:
    """It was cancelled in the same moment, say."""
    returned = Returned()
    returned.keep("run", 3, outcome(1))
    assert returned.take(described(5, status)) is None


def test_a_step_that_is_repeated_here_returns_anew() -> None:
    """The last one counts."""
    returned = Returned()
    returned.keep("run", 9, outcome(1))
    returned.keep("run", 12, outcome(2))
    assert returned.take(described(14)) == outcome(2)


def test_an_outcome_is_given_once() -> None:
    """Whoever takes it keeps the status."""
    returned = Returned()
    returned.keep("run", 3, outcome())
    assert returned.take(described(5)) is not None
    assert returned.take(described(5)) is None


def test_only_the_latest_are_kept() -> None:
    """The oldest leaves."""
    returned = Returned(most=1)
    returned.keep("run", 3, outcome())
    returned.keep("another", 3, outcome())
    assert returned.take(described(5)) is None


@pytest.mark.parametrize(
    "result",
    [
        "x" * (MOST_CHARACTERS + 1),
        ["x" * MOST_CHARACTERS, "y"],
        {"x" * (MOST_CHARACTERS + 1): 1},
        [0] * MOST_VALUES,
        {str(each): each for each in range(MOST_VALUES)},
        [[[0] * 20] * 20],
    ],
)
def test_what_is_large_is_not_kept(result: object) -> None:
    """Results are up to megabytes, of thousands of tasks."""
    returned = Returned()
    returned.keep("run", 3, outcome(result))
    assert returned.take(described(5)) is None


@pytest.mark.parametrize("result", [None, True, 1.5, "x" * MOST_CHARACTERS, {"a": [{"b": "c"}]}])
def test_what_is_small_is_kept(result: object) -> None:
    """As the agent answered it."""
    returned = Returned()
    returned.keep("run", 3, outcome(result))
    assert returned.take(described(5)) == outcome(result)
