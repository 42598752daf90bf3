"""Worked examples of orders to cancel many tasks for the OpenAPI page."""

from typing import Any

from api.dead_letter_examples import bodies
from api.examples import json_examples, problem_example
from orchestrator.cancellations import CancellationMatch, CancellationRequest

_ORDER_ID = "1f6a0c52-6a0e-4c77-9d0b-0f4f5b1f2a33"
_RUNNING = {
    "order_id": _ORDER_ID,
    "state": "running",
    "matched": 400,
    "done": 0,
    "failed": 0,
}

_UNREACHABLE = problem_example(503, "Service Unavailable", "The engine did not answer in time")
_UNKNOWN = problem_example(404, "Not Found", f"Cancellation '{_ORDER_ID}' is not known")

CANCEL = bodies(
    CancellationRequest,
    agent={"filter": {"agent": "content_ingestion_agent"}, "reason": "wrong documents"},
    tenant={"filter": {"tenant": "acme", "priority": 1, "until": "2026-01-15T10:30:00Z"}},
    dry={"filter": {"pattern": "upload_pdf"}, "dry_run": True},
    all={"all": True},
)
CANCEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A dry run",
        "model": CancellationMatch,
        **json_examples(dry={"matched": 400, "dry_run": True}),
    },
    202: {"description": "The engine has the order", **json_examples(started=_RUNNING)},
    409: problem_example(409, "Conflict", "The engine takes no further batch operation now; ..."),
    422: problem_example(
        422,
        "Unprocessable Entity",
        'say what to select, or {"all": true} for every open task',
    ),
    503: _UNREACHABLE,
}
STATUS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "How far it is",
        **json_examples(completed=_RUNNING | {"state": "completed", "done": 400}),
    },
    404: _UNKNOWN,
    503: _UNREACHABLE,
}
STOP_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "As it is then",
        **json_examples(stopped=_RUNNING | {"state": "stopped", "done": 120}),
    },
    404: _UNKNOWN,
    503: _UNREACHABLE,
}
