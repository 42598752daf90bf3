"""Worked examples of aggregates for the OpenAPI page."""

from typing import Any

from api.examples import json_examples, problem_example
from orchestrator.aggregates import AggregateRequest

_AGGREGATE_ID = "3f1c7a52-8f0e-4b51-9d9b-0a6f4f0c2b11"
_TASK_IDS = [f"550e8400-e29b-41d4-a716-44665544000{number}" for number in (1, 2, 3)]
_RESULTS = [
    {
        "task_id": _TASK_IDS[0],
        "agent": "content_ingestion_agent",
        "result": {"pages": 3},
        "execution_time": 45.2,
    },
    {
        "task_id": _TASK_IDS[1],
        "agent": "translation_agent",
        "result": {"text": "..."},
        "execution_time": 0.8,
    },
]
_ERRORS = [
    {
        "task_id": _TASK_IDS[2],
        "agent": "assessment_agent",
        "error": "Failed after 4 attempts: assessment_agent at http://... answered 500",
        "error_type": "AgentFailed",
    }
]
_RUNNING = {
    "aggregate_id": _AGGREGATE_ID,
    "status": "running",
    "total_tasks": 3,
    "completed": 1,
    "failed": 0,
    "cancelled": 0,
    "pending": 2,
    "results": _RESULTS[:1],
    "errors": [],
    "created_at": "2026-01-15T10:30:00Z",
    "updated_at": "2026-01-15T10:30:02Z",
}
_COMPLETED = _RUNNING | {
    "status": "completed",
    "completed": 2,
    "failed": 1,
    "pending": 0,
    "results": _RESULTS,
    "errors": _ERRORS,
    "updated_at": "2026-01-15T10:30:46Z",
}
_FAILED = _COMPLETED | {
    "status": "failed",
    "reason": "3 completed tasks were asked for, and only 2 can",
}

_UNREACHABLE = problem_example(503, "Service Unavailable", "The engine did not answer in time")
_UNKNOWN = problem_example(404, "Not Found", f"Aggregate '{_AGGREGATE_ID}' is not known")
_INVALID = problem_example(
    422, "Unprocessable Entity", "aggregate_id: String should have at most 500 characters"
)
_WAIT = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string", "example": "wait=10"},
}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its parts in place, since the page knows the parts of answers only."""
    parts = schema.pop("$defs", {})

    def whole(piece: Any) -> Any:
        if isinstance(piece, list):
            return [whole(each) for each in piece]
        if not isinstance(piece, dict):
            return piece
        named = parts[piece["$ref"].rpartition("/")[2]] if "$ref" in piece else {}
        own = {name: value for name, value in piece.items() if name != "$ref"}
        return {name: whole(value) for name, value in (named | own).items()}

    inlined: dict[str, Any] = whole(schema)
    return inlined


SUBMIT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _inlined(AggregateRequest.model_json_schema()),
                "examples": {
                    "ids": {
                        "summary": "Join tasks that exist",
                        "value": {"task_ids": _TASK_IDS},
                    },
                    "fan-out": {
                        "summary": "Start three tasks, take the first answer, cancel the rest",
                        "value": {
                            "tasks": [
                                {"pattern": "translate_content", "payload": {"text": "plants"}},
                                {"pattern": "translate_content", "payload": {"text": "Pflanzen"}},
                                {"capabilities": ["translation"], "payload": {"text": "plantes"}},
                            ],
                            "join": "any",
                            "on_met": "cancel_rest",
                            "merge": "first",
                        },
                    },
                    "quorum": {
                        "summary": "Two of three within a minute",
                        "value": {
                            "task_ids": _TASK_IDS,
                            "join": {"at_least": 2},
                            "deadline": 60,
                        },
                    },
                    "few failures": {
                        "value": {
                            "task_ids": _TASK_IDS,
                            "join": {"max_failed_percent": 5},
                            "on_failure": "continue",
                            "merge": "deep_merge",
                        },
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
            **_WAIT,
            "description": "Wait up to so many seconds, at most 60, for the end; 30 if absent",
        },
    ],
}
FOLLOW: dict[str, Any] = {
    "parameters": [
        {**_WAIT, "description": "Wait up to so many seconds, at most 60, for the end"},
    ]
}
SUBMIT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "It has ended", **json_examples(completed=_COMPLETED, failed=_FAILED)},
    202: {"description": "It goes on; what there is", **json_examples(running=_RUNNING)},
    413: problem_example(
        413,
        "Content Too Large",
        "The tasks are over the 1,500,000 bytes that an aggregate takes; send them to "
        "POST /orchestrate/batch, and their ids here",
    ),
    415: problem_example(
        415, "Unsupported Media Type", "Content-Type is text/xml; send application/json"
    ),
    422: problem_example(
        422,
        "Unprocessable Entity",
        "1 of 3 items are wrong, and nothing was started; the first is item 2: pattern: Unknown "
        "pattern 'upload_pfd'; did you mean 'upload_pdf'?",
    ),
    503: problem_example(
        503, "Service Unavailable", "Agent 'content_ingestion_agent' is currently unavailable"
    ),
}
STATUS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The aggregate", **json_examples(running=_RUNNING, completed=_COMPLETED)},
    404: _UNKNOWN,
    422: _INVALID,
    503: _UNREACHABLE,
}
CANCEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "It is being done", **json_examples(running=_RUNNING)},
    404: _UNKNOWN,
    503: _UNREACHABLE,
}
REDRIVE_RESPONSES: dict[int | str, dict[str, Any]] = CANCEL_RESPONSES | {
    409: problem_example(
        409,
        "Conflict",
        f"Aggregate '{_AGGREGATE_ID}' cannot be redriven: its input does not fit",
    ),
}
