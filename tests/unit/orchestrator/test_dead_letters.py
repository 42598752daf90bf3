"""What travels about dead letters stays small, and says what is meant."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.dead_letters import (
    KEPT_RUNS,
    BulkRequest,
    DeadLetterFilter,
    cut,
    dead_letter_id,
    is_repeatable,
    outlined,
    request_of,
    runs_after,
    shortened,
    task_id_of,
)
from orchestrator.models import Attempt, Route, Run, Task
from tests.support.plans import AGENT, plan

ENDED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
MEMO_BYTES = 2048


def attempt(outcome: str = "AgentFailed", error: str | None = None) -> Attempt:
    """One that failed."""
    return Attempt(
        attempt=1, agent=AGENT, instance="http://agent", outcome=outcome, seconds=0.1, error=error
    )


def run(number: int = 0, **changes: Any) -> Run:
    """One that failed, its number in its error."""
    defaults: dict[str, Any] = {
        "error": f"run {number}",
        "error_type": "AgentFailed",
        "attempts": 1,
        "ended_at": ENDED,
        "attempt_history": (attempt(),),
    }
    return Run(**(defaults | changes))


def test_a_dead_letters_id_names_its_task() -> None:
    """Both ways, whatever the task's id."""
    assert "dead-letter/a/b" == dead_letter_id("a/b")
    assert "a/b" == task_id_of("dead-letter/a/b")


def test_a_task_keeps_its_latest_runs() -> None:
    """However often it is redriven; the attempts of the last only."""
    runs: tuple[Run, ...] = ()
    for number in range(25):
        runs = runs_after(runs, run(number))
    assert KEPT_RUNS == len(runs)
    assert [f"run {number}" for number in range(15, 25)] == [each.error for each in runs]
    assert [0] * 9 + [1] == [len(each.attempt_history) for each in runs]


def test_runs_stay_small_whatever_agents_say() -> None:
    """All that a task carries along of them is far below what a payload may have to spare."""
    loud = run(error="😀" * 50_000, attempt_history=(attempt(error="😀" * 50_000),) * 20)
    runs: tuple[Run, ...] = ()
    for _ in range(12):
        runs = runs_after(runs, loud)
    assert sum(len(each.model_dump_json().encode()) for each in runs) < 90_000
    assert len(shortened(loud).model_dump_json().encode()) < 65_000


def test_what_a_memo_shows_of_runs_fits_into_it() -> None:
    """Five runs, without their attempts."""
    shown = outlined([run(number, error="x" * 10_000) for number in range(10)])
    assert len(json.dumps(shown)) < MEMO_BYTES
    assert ["AgentFailed"] * 5 == [each["error_type"] for each in shown]
    assert {"attempt_history"}.isdisjoint(shown[0])


@pytest.mark.parametrize(("text", "expected"), [("", ""), ("abcde", "abcde"), ("abcdef", "abcd…")])
def test_a_long_text_is_cut(text: str, expected: str) -> None:
    """And says so."""
    assert expected == cut(text, 5)


def test_a_request_is_shown_as_it_was_submitted() -> None:
    """Without what we added."""
    task = Task(pattern="read", payload={"n": 1}, plan=plan(), earlier_runs=(run(),))
    assert {"pattern": "read", "payload": {"n": 1}} == request_of(task)


ONCE = Route(agent="b", endpoint="/", task_queue="agent.b", idempotent=False)


@pytest.mark.parametrize(
    ("changes", "failed", "expected"),
    [
        ({}, run(), True),
        ({"idempotent": False}, run(error_type="OutcomeUnknown"), False),
        ({"idempotent": False}, run(error_type="DeadlineExceeded", attempt_history=()), False),
        ({"fallbacks": (ONCE,)}, run(), False),
        (
            {"idempotent": False},
            run(error_type="AgentUnreachable", attempt_history=(attempt("AgentUnreachable"),) * 2),
            True,
        ),
        (
            {"idempotent": False},
            run(
                error_type="AgentUnreachable",
                attempt_history=(attempt("AgentTimedOut"), attempt("AgentUnreachable")),
            ),
            False,
        ),
    ],
)
def test_only_what_does_no_harm_is_repeated_unasked(
    *, changes: dict[str, Any], failed: Run, expected: bool
) -> None:
    """An agent that is not idempotent must not have got a request."""
    assert expected == is_repeatable(plan(**changes), failed)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"agent": "a", "rate": 5}, DeadLetterFilter(agent="a")),
        ({"filter": {"agent": "a"}}, DeadLetterFilter(agent="a")),
        ({"all": True}, DeadLetterFilter()),
        ({"all": True, "filter": {}}, DeadLetterFilter()),
    ],
)
def test_what_selects_stands_in_the_filter_or_beside_it(
    body: dict[str, Any], expected: DeadLetterFilter
) -> None:
    """Both are the same order."""
    assert expected == BulkRequest.model_validate(body).filter


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "say what to select"),
        ({"filter": {}, "dry_run": True}, "say what to select"),
        ({"all": True, "tenant": "t"}, "leave one of them out"),
        ({"filter": {"agent": "a"}, "agent": "a"}, "not in both"),
        ({"filter": 5, "all": True}, "filter"),
        ({"agent": "a", "rate": 0}, "rate"),
        ({"since": "2026-01-15T10:30:00"}, "since"),
    ],
)
def test_an_order_about_many_is_deliberate(body: dict[str, Any], words: str) -> None:
    """Nothing is redriven by a slip."""
    with pytest.raises(ValidationError) as caught:
        BulkRequest.model_validate(body)
    assert words in str(caught.value)
