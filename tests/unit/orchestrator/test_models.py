"""What a request may be, and what a status shows."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.models import Attempt, Progress, RateLimit, Route, Task, TaskRequest, TaskState
from orchestrator.statuses import TaskStatus
from tests.support.plans import AGENT, plan, retry

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def request(**changes: Any) -> TaskRequest:
    """A request for the pattern p, changed."""
    return TaskRequest.model_validate({"pattern": "p", "payload": {}} | changes)


def test_the_documented_request_is_valid() -> None:
    """Every field of the documentation's example is understood."""
    body = {
        "pattern": "upload_pdf",
        "payload": {"file": "document.pdf", "user_id": "12345"},
        "priority": 3,
        "metadata": {"source": "web_app"},
        "timeout": 120,
        "callback_url": "https://api.example.com/callback",
    }
    task = TaskRequest.model_validate(body)
    assert body | {"capabilities": [], "tenant": "default", "timeout": 120.0} == task.model_dump(
        mode="json"
    )


def test_pattern_and_payload_are_enough() -> None:
    """All else has a default."""
    task = request()
    expected: tuple[object, ...] = (None, None, "default", {}, None, ())
    assert expected == (
        task.priority,
        task.timeout,
        task.tenant,
        task.metadata,
        task.callback_url,
        task.capabilities,
    )


def test_capabilities_stand_in_for_a_pattern() -> None:
    """A request names either."""
    assert ("pdf",) == request(pattern=None, capabilities=["pdf"]).capabilities


@pytest.mark.parametrize("priority", [1, 5])
def test_priorities_reach_from_one_to_five(priority: int) -> None:
    """Both ends are included."""
    assert priority == request(priority=priority).priority


@pytest.mark.parametrize("timeout", [0.5, 1, 30 * 24 * 3600])
def test_timeouts_are_positive_seconds(timeout: float) -> None:
    """Whole or not, up to thirty days."""
    assert timeout == request(timeout=timeout).timeout


@pytest.mark.parametrize("tenant", ["a", "team-1", "user@example.com", "a_b.c:d", "x" * 64])
def test_tenants(tenant: str) -> None:
    """Names and addresses of up to 64 characters."""
    assert tenant == request(tenant=tenant).tenant


def test_a_nul_is_refused_in_words() -> None:
    """Rather than by the pattern that it does not match."""
    with pytest.raises(ValidationError, match="A NUL character cannot be kept; leave it out"):
        request(pattern="up\0load")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pattern": "up\0load"}, "pattern"),
        ({"capabilities": ["a\0"]}, "capabilities"),
        ({"priority": 0}, "priority"),
        ({"priority": 6}, "priority"),
        ({"priority": "3"}, "priority"),
        ({"priority": 3.0}, "priority"),
        ({"priority": True}, "priority"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "10"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": 30 * 24 * 3600 + 1}, "timeout"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "x" * 65}, "tenant"),
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": "a\n"}, "tenant"),
        ({"tenant": "ä"}, "tenant"),
        ({"tenant": None}, "tenant"),
        ({"pattern": ""}, "pattern"),
        ({"pattern": "x" * 201}, "pattern"),
        ({"pattern": 1}, "pattern"),
        ({"payload": None}, "payload"),
        ({"payload": []}, "payload"),
        ({"payload": "text"}, "payload"),
        ({"metadata": []}, "metadata"),
        ({"capabilities": "pdf"}, "capabilities"),
        ({"capabilities": [""]}, "capabilities"),
        ({"capabilities": ["x"] * 33}, "capabilities"),
        ({"callback_url": "ftp://h"}, "callback_url"),
        ({"callback_url": "/callback"}, "callback_url"),
        ({"prioritiy": 3}, "prioritiy"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    """One wrong value is one problem, at its field."""
    with pytest.raises(ValidationError) as caught:
        request(**change)
    assert {field} == {str(each["loc"][0]) for each in caught.value.errors()}


def test_neither_pattern_nor_capabilities() -> None:
    """A request that nothing could route is refused in words."""
    with pytest.raises(ValidationError, match="name a pattern, or the capabilities"):
        request(pattern=None)


def test_the_payload_is_required() -> None:
    """A task without one is a mistake of the caller."""
    with pytest.raises(ValidationError) as caught:
        TaskRequest.model_validate({"pattern": "p"})
    assert [("payload",)] == [each["loc"] for each in caught.value.errors()]


def test_a_request_does_not_change() -> None:
    """Models are frozen."""
    with pytest.raises(ValidationError):
        request().priority = 1  # type: ignore[misc]


def test_a_task_by_hand_needs_what_a_request_needs() -> None:
    """The workflow's input is the request, and its plan may be missing."""
    assert Task(pattern="p", payload={}).plan is None


def status(**changes: Any) -> dict[str, Any]:
    """The JSON of a status, changed."""
    fields = {"task_id": "t", "status": "queued", "created_at": NOW, "updated_at": NOW}
    return TaskStatus.model_validate(fields | changes).model_dump(mode="json")


def test_a_status_leaves_blanks_out() -> None:
    """Only what is known is shown."""
    expected = {
        "task_id": "t",
        "status": "queued",
        "created_at": "2026-01-05T00:00:00Z",
        "updated_at": "2026-01-05T00:00:00Z",
    }
    assert expected == status()


@pytest.mark.parametrize("result", [None, False, 0, "", [], {}])
def test_a_completed_task_shows_its_result_whatever_it_is(result: object) -> None:
    """Null is a result too."""
    shown = status(status="completed", result=result)
    assert "result" in shown
    assert result == shown["result"]


@pytest.mark.parametrize("state", [each for each in TaskState if each is not TaskState.COMPLETED])
def test_other_states_have_no_empty_result(state: TaskState) -> None:
    """A task that has not completed has nothing to show."""
    assert "result" not in status(status=state)


def test_a_status_keeps_zeros() -> None:
    """No attempts and no seconds are facts, not blanks."""
    shown = status(attempts=0, execution_time=0.0, error="")
    assert (0, 0.0, "") == (shown["attempts"], shown["execution_time"], shown["error"])


def test_a_status_shows_why_a_task_waits_and_what_was_tried() -> None:
    """Each as JSON that a program reads."""
    attempt = Attempt(
        attempt=1, agent="reader", instance="http://h", outcome="AgentFailed", seconds=0.5, at=NOW
    )
    shown = status(
        blocked_by="breaker", until=NOW, attempt_history=[attempt], chosen_by="exact pattern p"
    )
    assert ("breaker", "2026-01-05T00:00:00Z", "exact pattern p", "AgentFailed") == (
        shown["blocked_by"],
        shown["until"],
        shown["chosen_by"],
        shown["attempt_history"][0]["outcome"],
    )


def test_what_our_processes_tell_each_other_may_be_newer_than_who_reads_it() -> None:
    """Unknown fields are passed over there; what people send is held to its fields."""
    newer = {"sent": 1, "made": 1, "later": True}
    assert Progress(sent=1, made=1) == Progress.model_validate(newer)
    with pytest.raises(ValidationError):
        TaskStatus.model_validate(status() | {"later": True})


def test_a_plans_routes_begin_with_its_own() -> None:
    """The fallbacks follow."""
    second = Route(agent="second", endpoint="/x", task_queue="agent.second")
    made = plan(fallbacks=(second,))
    assert [(AGENT, "/read"), ("second", "/x")] == [
        (each.agent, each.endpoint) for each in made.routes
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"initial_seconds": 0},
        {"maximum_seconds": 0.5},
        {"backoff": 0.5},
        {"jitter": 1.5},
        {"max_attempts": 0},
        {"max_retry_after_seconds": 1e10},
    ],
)
def test_retries_that_the_engine_would_refuse(change: dict[str, float]) -> None:
    """A plan by hand is looked at before it is used."""
    with pytest.raises(ValidationError):
        retry(**change)


@pytest.mark.parametrize("weight", [0, 1001])
def test_a_tenants_weight_is_what_the_engine_allows(weight: float) -> None:
    """A thousandth to a thousand."""
    with pytest.raises(ValidationError):
        plan(fairness_weight=weight)


@pytest.mark.parametrize("limit", [{"rate": 0}, {"burst": 0}])
def test_a_limit_that_would_let_nothing_pass(limit: dict[str, float]) -> None:
    """Pausing an agent is another order."""
    with pytest.raises(ValidationError):
        RateLimit.model_validate({"rate": 1, "burst": 1, "mode": "queue"} | limit)
