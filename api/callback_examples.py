"""Worked examples of callbacks for the OpenAPI page."""

from typing import Any

from api.dead_letter_examples import bodies
from api.examples import json_examples, problem_example
from orchestrator.callbacks import CallbackOrder

_TASK_ID = "550e8400-e29b-41d4-a716-446655440000"
_ITEM = {
    "callback_id": _TASK_ID,
    "task_id": _TASK_ID,
    "status": "dead",
    "type": "task.completed",
    "url": "https://api.example.com/callback",
    "agent": "content_ingestion_agent",
    "pattern": "upload_pdf",
    "tenant": "default",
    "batch": None,
    "created_at": "2026-01-15T10:31:00Z",
    "updated_at": "2026-01-16T12:13:36Z",
    "error": "the receiver answered 500",
    "error_type": "CallbackExhausted",
    "status_code": 500,
    "attempts": 11,
}
_DETAIL = _ITEM | {"webhook_id": _TASK_ID, "last_error": None, "next_attempt_at": None}
_UNKNOWN = problem_example(404, "Not Found", f"Callback '{_TASK_ID}' is not known")
_UNREACHABLE = problem_example(503, "Service Unavailable", "The engine did not answer in time")

LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page",
        **json_examples(page={"callbacks": [_ITEM], "next_cursor": "MDAx"}),
    },
    503: _UNREACHABLE,
}
DETAIL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The callback", **json_examples(detail=_DETAIL)},
    404: _UNKNOWN,
    503: _UNREACHABLE,
}
ORDER_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The callback as it is then",
        **json_examples(pending=_DETAIL | {"status": "pending"}),
    },
    404: _UNKNOWN,
    409: problem_example(409, "Conflict", "It was discarded before"),
    503: _UNREACHABLE,
}
ORDER = bodies(CallbackOrder, why={"reason": "the receiver is mended", "by": "ops"})
