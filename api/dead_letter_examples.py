"""Worked examples of dead letters for the OpenAPI page."""

from typing import Any

from api.examples import json_examples, problem_example
from orchestrator.dead_letters import BulkMatch, BulkRequest, DeadLetterOrder
from orchestrator.models import Model
from orchestrator.selection import ManyRequest

_TASK_ID = "550e8400-e29b-41d4-a716-446655440000"
_REDRIVE_ID = "9b2f3c1e-7f53-4d2b-8f43-2a1d5c0e6b77"
_ITEM = {
    "task_id": _TASK_ID,
    "agent": "content_ingestion_agent",
    "pattern": "upload_pdf",
    "tenant": "default",
    "priority": 3,
    "error": "Failed after 4 attempts: content_ingestion_agent at http://... answered 500",
    "error_type": "AgentFailed",
    "attempts": 4,
    "runs": 1,
    "created_at": "2026-01-15T10:30:00Z",
    "failed_at": "2026-01-15T10:30:09Z",
}
_DETAIL = _ITEM | {
    "request": {"pattern": "upload_pdf", "payload": {"file": "document.pdf"}},
    "chosen_by": "exact pattern upload_pdf",
    "attempt_history": [
        {
            "attempt": 4,
            "agent": "content_ingestion_agent",
            "instance": "http://127.0.0.1:8101",
            "outcome": "AgentFailed",
            "seconds": 0.02,
            "status": 500,
            "at": "2026-01-15T10:30:09Z",
        }
    ],
    "earlier_runs": [],
    "expires_at": None,
}
_RUNNING = {
    "redrive_id": _REDRIVE_ID,
    "action": "redrive",
    "state": "running",
    "matched": 200,
    "done": 30,
    "failed": 0,
    "skipped": 0,
    "last_failure": None,
}
_ACCEPTED = {
    "task_id": _TASK_ID,
    "status": "queued",
    "agent": "content_ingestion_agent",
    "created_at": "2026-01-15T10:30:00Z",
    "updated_at": "2026-01-15T11:00:00Z",
}

_UNREACHABLE = problem_example(503, "Service Unavailable", "The engine did not answer in time")
_UNKNOWN = problem_example(404, "Not Found", f"Task '{_TASK_ID}' is not among the dead letters")
_INVALID = problem_example(
    422,
    "Unprocessable Entity",
    'Value error, say what to select, or {"all": true} for every dead letter',
)


def bodies(model: type[Model], **values: Any) -> dict[str, Any]:
    """The description of a request's body by its model, with examples."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})
    for name, field in schema["properties"].items():
        # Inline, since the page knows the parts of answers only.
        if "$ref" in field:
            schema["properties"][name] = parts[field["$ref"].rpartition("/")[2]]
    return {
        "requestBody": {
            "required": issubclass(model, ManyRequest),
            "content": {
                "application/json": {
                    "schema": schema,
                    "examples": {name: {"value": value} for name, value in values.items()},
                }
            },
        }
    }


ORDER = bodies(DeadLetterOrder, why={"reason": "the disk was replaced", "by": "ops"})
BULK = bodies(
    BulkRequest,
    agent={"filter": {"agent": "content_ingestion_agent"}, "rate": 5, "reason": "it is back"},
    dry={"filter": {"error_type": "AgentTimedOut"}, "dry_run": True},
    all={"all": True},
)
LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page",
        **json_examples(page={"dead_letters": [_ITEM], "next_cursor": "MDAx"}),
    },
    422: _INVALID,
    503: _UNREACHABLE,
}
DETAIL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The dead letter", **json_examples(detail=_DETAIL)},
    404: _UNKNOWN,
    503: _UNREACHABLE,
}
RESOLVE_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "Done"},
    404: _UNKNOWN,
    409: problem_example(
        409,
        "Conflict",
        f"Task '{_TASK_ID}' is running already; cancel it, or wait until it ends",
    ),
    422: _INVALID,
    503: _UNREACHABLE,
}
BULK_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A dry run",
        "model": BulkMatch,
        **json_examples(dry={"action": "redrive", "matched": 200, "dry_run": True}),
    },
    202: {"description": "The engine has the order", **json_examples(started=_RUNNING)},
    422: _INVALID,
    503: _UNREACHABLE,
}
REDRIVE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "How far it is", **json_examples(running=_RUNNING)},
    404: problem_example(404, "Not Found", f"Redrive '{_REDRIVE_ID}' is not known"),
    503: _UNREACHABLE,
}
