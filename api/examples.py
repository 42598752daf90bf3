"""Worked examples for the OpenAPI page."""

from typing import Any

from orchestrator.models import PriorityChange, TaskRequest
from orchestrator.statuses import DryRun, Health, Probe, TaskStatus

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


def json_examples(**values: Any) -> dict[str, Any]:
    """The named examples of a JSON body."""
    return {
        "content": {
            "application/json": {"examples": {name: {"value": v} for name, v in values.items()}}
        }
    }


def problem_example(status: int, title: str, detail: str) -> dict[str, Any]:
    """An error response with its example."""
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


_DRY_RUN = {
    "plan": {
        "agent": "content_ingestion_agent",
        "endpoint": "/ingest",
        "task_queue": "agent.content_ingestion_agent",
        "idempotent": True,
        "dispatch": "queued",
        "attempt_timeout": 300.0,
        "deadline": 3600.0,
        "priority": 2,
        "retry": {
            "max_attempts": 4,
            "initial_seconds": 1.0,
            "backoff": 2.0,
            "maximum_seconds": 60.0,
            "jitter": 0.1,
            "max_retry_after_seconds": 300.0,
        },
        "chosen_by": "exact pattern upload_pdf",
        "fairness_weight": 1.0,
        "fallbacks": [],
        "dead_letter": True,
        "dead_letter_expires": None,
    },
    "admission": {
        "admitted": False,
        "status_code": 429,
        "detail": "Rate limit exceeded for agent 'content_ingestion_agent'",
        "retry_after": 1,
    },
}


def _header(text: str) -> dict[str, Any]:
    return {"schema": {"type": "string"}, "description": text}


_RETRY_AFTER = {"Retry-After": _header("Whole seconds until it is worth another try")}
_RATE_LIMIT_HEADERS = {
    "RateLimit-Limit": _header(
        "Calls a minute, or tasks; here and below: of the agent's limit or the tenant's quota, "
        "whichever leaves less, where there is one"
    ),
    "RateLimit-Remaining": _header("How many are left now"),
    "RateLimit-Reset": _header(
        "Seconds until all are back, where that is known; of a refusal, as Retry-After"
    ),
    "RateLimit-Policy": _header("All such limits as the IETF's draft writes them"),
    "RateLimit": _header(
        "What is left of each, and seconds until it is reset, as that draft writes it"
    ),
}

_UNREACHABLE = problem_example(503, "Service Unavailable", "The engine did not answer in time")
_UNKNOWN_TASK = problem_example(404, "Not Found", f"Task '{_TASK_ID}' is not known")
_INVALID = problem_example(
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
    200: {
        "description": "It ended while we waited; or what a dry run found",
        "model": TaskStatus | DryRun,
        **json_examples(done=_COMPLETED, dry_run=_DRY_RUN),
    },
    202: {
        "description": "The engine has the task",
        "headers": _RATE_LIMIT_HEADERS,
        **json_examples(queued=_QUEUED),
    },
    400: problem_example(
        400, "Bad Request", "Unknown pattern 'upload_pfd'; did you mean 'upload_pdf'?"
    ),
    413: problem_example(
        413, "Content Too Large", "2,100,000 bytes are too many; at most 1,900,000 are accepted"
    ),
    415: problem_example(
        415, "Unsupported Media Type", "Content-Type is text/xml; send application/json"
    ),
    422: _INVALID,
    429: {
        **problem_example(
            429,
            "Too Many Requests",
            "Rate limit exceeded for agent 'content_ingestion_agent'",
        ),
        "headers": _RETRY_AFTER | _RATE_LIMIT_HEADERS,
    },
    503: {
        **problem_example(
            503,
            "Service Unavailable",
            "Agent 'content_ingestion_agent' is currently unavailable",
        ),
        "description": "The agent is unavailable, the queue is full, or the engine does not answer",
        "headers": _RETRY_AFTER,
    },
}
STATUS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The task", **json_examples(completed=_COMPLETED, retrying=_RETRYING)},
    404: _UNKNOWN_TASK,
    422: _INVALID,
    503: _UNREACHABLE,
}
LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page",
        **json_examples(page={"tasks": [_COMPLETED], "next_cursor": "MDAx"}),
    },
    422: _INVALID,
    503: _UNREACHABLE,
}
HEALTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The engine answers",
        **json_examples(
            healthy={
                "status": "healthy",
                "timestamp": "2026-01-15T10:30:00Z",
                "version": "1.0.0",
                "config_version": "db2cc9714466",
                "agents_healthy": 18,
                "agents_total": 18,
                "active_tasks": 5,
                "queue_size": 23,
                "queues": {"content_ingestion_agent": {"priority_3": 23}},
            }
        ),
    },
    503: {"description": "The engine does not answer, or this process stops", "model": Health},
}
READY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "It may", **json_examples(ready={"status": "ready"})},
    503: {
        "description": "It is stopping, or the engine does not answer",
        "model": Probe,
        **json_examples(
            draining={"status": "not_ready", "reason": "this process is stopping"},
            alone={"status": "not_ready", "reason": "The engine is unreachable"},
        ),
    },
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
                    "dead_letters": 5,
                    "agents_status": {"content_ingestion_agent": "closed"},
                    "queue_sizes": {"priority_5": 2, "priority_4": 5, "priority_3": 10},
                    "agent_queue_sizes": {
                        "content_ingestion_agent": {"priority_5": 2, "priority_4": 5}
                    },
                }
            },
            "text/plain": {"example": "orchestrator_active_tasks 5.0\n"},
        },
    }
}

PRIORITY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": PriorityChange.model_json_schema(),
                "examples": {"urgent": {"value": {"priority": 5}}},
            }
        },
    }
}
PRIORITY_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "It goes by the new priority", **json_examples(moved=_QUEUED)},
    404: _UNKNOWN_TASK,
    409: problem_example(409, "Conflict", f"Task '{_TASK_ID}' has ended"),
    422: _INVALID,
    503: _UNREACHABLE,
}
