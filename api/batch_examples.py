"""Worked examples of batches for the OpenAPI page."""

from typing import Any

from api.dead_letter_examples import BULK_RESPONSES
from api.examples import SUBMIT, SUBMIT_RESPONSES, json_examples, problem_example
from orchestrator.batches import MAX_ITEMS, BatchAccepted, BatchRehearsal, BatchStatus
from orchestrator.dead_letters import BatchRedrive
from orchestrator.models import TaskRequest

_BATCH_ID = "0b8f3f1e-55a1-8c4d-9e1f-6c4f8a2d0000"
_QUEUED = {
    "batch_id": _BATCH_ID,
    "status": "queued",
    "total": 3,
    "completed": 0,
    "failed": 0,
    "cancelled": 0,
    "pending": 3,
    "created_at": "2026-01-15T10:30:00Z",
    "updated_at": "2026-01-15T10:30:00Z",
    "error": None,
}
_RUNNING = _QUEUED | {"status": "running", "completed": 1, "failed": 1, "pending": 1}
_DONE = _QUEUED | {"status": "completed", "completed": 2, "failed": 1, "pending": 0}
_TASKS = [
    {"pattern": "upload_pdf", "payload": {"file": "one.pdf"}},
    {"pattern": "upload_pdf", "payload": {"file": "two.pdf"}, "priority": 5},
]
_LINES = """\
{"pattern": "upload_pdf", "payload": {"file": "one.pdf"}}
{"pattern": "upload_pdf", "payload": {"file": "two.pdf"}, "priority": 5}
"""
_RESULTS = """\
{"task_id": "0b8f3f1e-55a1-8c4d-9e1f-6c4f8a2d0001", "status": "completed", "result": {"pages": 3}}
{"task_id": "0b8f3f1e-55a1-8c4d-9e1f-6c4f8a2d0002", "status": "queued"}
"""
_MISTAKE = {"index": 4, "field": "priority", "message": "Input should be less than or equal to 5"}
_REHEARSED = {
    "total": 3,
    "agents": {"content_ingestion_agent": 3},
    "admission": {"admitted": True, "status_code": 202, "detail": None, "retry_after": None},
    "rejected": [],
    "rejected_items": 0,
}

_UNREACHABLE = problem_example(503, "Service Unavailable", "The engine did not answer in time")
_UNKNOWN = problem_example(404, "Not Found", f"Batch '{_BATCH_ID}' is not known")
_CURSOR = problem_example(
    422, "Unprocessable Entity", "cursor: not one that this service gave as next_cursor"
)
_REFUSED = problem_example(
    422,
    "Unprocessable Entity",
    "1 of 5 items are wrong, and nothing was started; the first is item 4: priority: "
    "Input should be less than or equal to 5",
)
_REFUSED["content"]["application/problem+json"]["schema"]["properties"] |= {
    "errors": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["message"],
            "properties": {
                "index": {"type": "integer", "description": "Of the item; the first is 0"},
                "field": {"type": ["string", "null"]},
                "message": {"type": "string"},
            },
        },
    },
    "bad_items": {"type": "integer", "description": "How many items are wrong"},
}
_REFUSED["content"]["application/problem+json"]["example"] |= {
    "errors": [_MISTAKE],
    "bad_items": 1,
}

SUBMIT_BATCH: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "array",
                    "items": TaskRequest.model_json_schema(),
                    "minItems": 1,
                    "maxItems": MAX_ITEMS,
                },
                "examples": {"two": {"summary": "Two tasks", "value": _TASKS}},
            },
            "application/x-ndjson": {
                "schema": {
                    "type": "string",
                    "description": f"One task a line, such as:\n\n```\n{_LINES}```",
                },
            },
        },
    },
    "parameters": SUBMIT["parameters"],
}
SUBMIT_BATCH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "It ended while we waited; or what a dry run found",
        "model": BatchAccepted | BatchRehearsal,
        **json_examples(done=_DONE, dry_run=_REHEARSED),
    },
    202: {
        "description": "The engine has the batch",
        **json_examples(
            queued=_QUEUED | {"rejected": [], "rejected_items": 0},
            partial=_QUEUED | {"rejected": [_MISTAKE], "rejected_items": 1},
        ),
    },
    413: SUBMIT_RESPONSES[413],
    415: problem_example(
        415,
        "Unsupported Media Type",
        "Content-Type is text/csv; send application/json or application/x-ndjson or "
        "application/jsonl",
    ),
    422: _REFUSED,
    503: SUBMIT_RESPONSES[503],
}
STATUS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The batch",
        "model": BatchStatus,
        **json_examples(running=_RUNNING, done=_DONE),
    },
    404: _UNKNOWN,
    503: _UNREACHABLE,
}
CANCEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "It is being cancelled, or had ended", **json_examples(running=_RUNNING)},
    404: _UNKNOWN,
    503: _UNREACHABLE,
}
RESULTS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page",
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "One item a line, as GET /status"},
                "example": _RESULTS,
            }
        },
        "headers": {
            "X-Next-Cursor": {
                "schema": {"type": "string"},
                "description": "Of the next page; absent on the last one",
            },
            "Link": {
                "schema": {"type": "string"},
                "description": 'The next page, as rel="next" (RFC 8288)',
            },
        },
    },
    404: _UNKNOWN,
    422: _CURSOR,
    503: _UNREACHABLE,
}
LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page",
        **json_examples(page={"batches": [_RUNNING], "next_cursor": "MDAx"}),
    },
    422: _CURSOR,
    503: _UNREACHABLE,
}

REDRIVE: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": BatchRedrive.model_json_schema(),
                "examples": {
                    "slowly": {"value": {"rate": 5, "reason": "the disk was replaced"}},
                    "dry": {"value": {"dry_run": True}},
                },
            }
        },
    }
}
REDRIVE_RESPONSES: dict[int | str, dict[str, Any]] = BULK_RESPONSES | {404: _UNKNOWN}
