"""What an order to cancel many tasks must say."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.cancellations import CancellationFilter, CancellationRequest


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"agent": "a", "reason": "wrong"}, CancellationFilter(agent="a")),
        ({"filter": {"batch": "b"}}, CancellationFilter(batch="b")),
        ({"all": True}, CancellationFilter()),
    ],
)
def test_what_selects_stands_in_the_filter_or_beside_it(
    body: dict[str, Any], expected: CancellationFilter
) -> None:
    """Both are the same order."""
    assert expected == CancellationRequest.model_validate(body).filter


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, 'say what to select, or {"all": true} for every open task'),
        ({"filter": {}, "dry_run": True}, "say what to select"),
        ({"all": True, "tenant": "t"}, "leave one of them out"),
        ({"filter": {"agent": "a"}, "agent": "a"}, "not in both"),
        ({"filter": {"agent": "a", "status": "queued"}}, "status cannot select"),
        ({"agent": "a", "rate": 5}, "rate"),
        ({"agent": "a", "error_type": "AgentFailed"}, "error_type"),
        ({"since": "2026-01-15T10:30:00"}, "since"),
        ({"agent": "a\x00"}, "agent"),
    ],
)
def test_an_order_about_many_is_deliberate(body: dict[str, Any], words: str) -> None:
    """Nothing is cancelled by a slip."""
    with pytest.raises(ValidationError) as caught:
        CancellationRequest.model_validate(body)
    assert words in str(caught.value)
