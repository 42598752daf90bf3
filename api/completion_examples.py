"""Worked examples of late answers for the OpenAPI page."""

from typing import Any

from api.completion_bodies import LateReport
from api.examples import problem_example

_OVER = (
    "This completion URL was used, or is not waited for any more: task "
    "'550e8400-e29b-41d4-a716-446655440000' has ended (completed)"
)

_BODIES: dict[str, Any] = {
    "examples": {
        "result": {"value": {"result": {"pages": 3, "extracted_text": "How plants make ..."}}},
        "failure": {
            "value": {"error": "The scanner is offline", "retryable": True, "retry_after": 60}
        },
        "permanent": {"value": {"error": {"message": "No PDF", "code": "not_pdf"}}},
        "progress": {"value": {"progress": {"pages_done": 40, "of": 300}}},
    }
}

REPORT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": LateReport.model_json_schema(), **_BODIES}},
    }
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    404: problem_example(404, "Not Found", "This completion URL is not known"),
    409: problem_example(409, "Conflict", _OVER),
    410: problem_example(410, "Gone", "This completion URL has expired"),
    413: problem_example(413, "Request Entity Too Large", "2,000,000 bytes are too many"),
    422: problem_example(
        422, "Unprocessable Entity", "send exactly one of result, error and progress"
    ),
    503: problem_example(
        503, "Service Unavailable", "Task '...' does not wait for this answer yet; send it again"
    ),
}
