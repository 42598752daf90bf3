"""Worked examples for the OpenAPI page."""

from typing import Any

from orchestrator.models import Health, TaskRequest, TaskStatus

_TASK_ID = "550e8400-e29b-41d4-a716-446655440000"
_QUEUED = {
    "task_id": _TASK_ID,
    "status": "queued",
    "agent": "content_ingestion_agent",
    "created_at": "2026-01-15T10:30:00Z",
    "updated_at": "2026-01-15T10:30:00Z",
}
_COMPLETED = _QUEUED | {
    "status": "completed",
    "pattern": "upload_pdf",
    "priority": 3,
    "tenant": "default",
    "result": {"pages": 3, "extracted_text": "How plants make food ..."},
    "updated_at": "2026-01-15T10:30:01Z",
    "execution_time": 0.041,
    "attempts": 1,
}
_RETRYING = _QUEUED | {
    "status": "running",
    "attempts": 1,
    "last_error": "content_ingestion_agent at http://127.0.0.1:8100/... answered 503",
    "next_attempt_at": "2026-01-15T10:30:02Z",
    "blocked_by": "retry_backoff",
}


def _json(**values: Any) -> dict[str, Any]:
    return {
        "content": {
            "application/json": {"examples": {name: {"value": v} for name, v in values.items()}}
        }
    }


def _problem(status: int, title: str, detail: str) -> dict[str, Any]:
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "status_code": status,
    }
    return {
        "description": title,
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["title", "status", "detail", "status_code"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "status_code": {"type": "integer"},
                    },
                },
                "example": body,
            }
        },
    }


_UNREACHABLE = _problem(503, "Service Unavailable", "The engine did not answer in time")
_UNKNOWN_TASK = _problem(404, "Not Found", f"Task '{_TASK_ID}' is not known")
_INVALID = _problem(
    422, "Unprocessable Entity", "priority: Input should be less than or equal to 5"
)

SUBMIT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": TaskRequest.model_json_schema(
                    ref_template="#/components/schemas/{model}"
                ),
                "examples": {
                    "pdf": {
                        "summary": "Extract the text of a PDF",
                        "value": {"pattern": "upload_pdf", "payload": {"file": "document.pdf"}},
                    },
                    "all fields": {
                        "value": {
                            "pattern": "upload_pdf",
                            "payload": {"file": "document.pdf", "user_id": "12345"},
                            "priority": 3,
                            "metadata": {"source": "web_app"},
                            "timeout": 120,
                        }
                    },
                    "by capability": {
                        "value": {"capabilities": ["pdf"], "payload": {"file": "document.pdf"}}
                    },
                },
            }
        },
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "Makes repeating the request safe",
        },
        {
            "name": "Prefer",
            "in": "header",
            "schema": {"type": "string", "example": "wait=10"},
            "description": "Wait up to so many seconds for the result",
        },
    ],
}
SUBMIT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "It ended while we waited", "model": TaskStatus, **_json(done=_COMPLETED)},
    202: {"description": "The engine has the task", **_json(queued=_QUEUED)},
    400: _problem(400, "Bad Request", "Unknown pattern 'upload_pfd'; did you mean 'upload_pdf'?"),
    413: _problem(
        413, "Content Too Large", "2,100,000 bytes are too many; at most 1,900,000 are accepted"
    ),
    415: _problem(415, "Unsupported Media Type", "Content-Type is text/xml; send application/json"),
    422: _INVALID,
    503: _UNREACHABLE,
}
STATUS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The task", **_json(completed=_COMPLETED, retrying=_RETRYING)},
    404: _UNKNOWN_TASK,
    422: _INVALID,
    503: _UNREACHABLE,
}
LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page", **_json(page={"tasks": [_COMPLETED], "next_cursor": "MDAx"})},
    422: _INVALID,
    503: _UNREACHABLE,
}
HEALTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The engine answers",
        **_json(
            healthy={
                "status": "healthy",
                "timestamp": "2026-01-15T10:30:00Z",
                "version": "1.0.0",
                "agents_healthy": 18,
                "agents_total": 18,
                "active_tasks": 5,
                "queue_size": 23,
            }
        ),
    },
    503: {"description": "The engine does not answer", "model": Health},
}
METRICS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON, or Prometheus text",
        "content": {
            "application/json": {
                "example": {
                    "total_tasks": 1523,
                    "active_tasks": 5,
                    "completed_tasks": 1450,
                    "failed_tasks": 68,
                    "cancelled_tasks": 0,
                    "agents_status": {"content_ingestion_agent": "closed"},
                    "queue_sizes": {"priority_5": 2, "priority_4": 5, "priority_3": 10},
                }
            },
            "text/plain": {"example": "orchestrator_active_tasks 5.0\n"},
        },
    }
}
