"""Worked examples of sessions for the OpenAPI page."""

from typing import Any

from api.examples import json_examples, problem_example

_WHO = {"name": "acme backend", "tenant": "acme", "scopes": ["read", "submit"], "kind": "key"}
_UNKNOWN = problem_example(401, "Unauthorized", "The key is not known, has expired or was revoked")
_FOREIGN = problem_example(403, "Forbidden", "The request comes from a page of another site")

WHO_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The caller", **json_examples(key=_WHO)},
    401: _UNKNOWN,
}
LOGIN: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 8192}},
                    "required": ["key"],
                    "additionalProperties": False,
                },
                "examples": {"key": {"value": {"key": "ork_..."}}},
            }
        },
    },
}
LOGIN_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The session is begun",
        "headers": {
            "Set-Cookie": {"description": "HttpOnly, SameSite=Strict", "schema": {"type": "string"}}
        },
        **json_examples(key=_WHO),
    },
    401: _UNKNOWN,
    403: _FOREIGN,
    413: problem_example(413, "Content Too Large", "20,000 bytes are too many"),
    415: problem_example(415, "Unsupported Media Type", "Content-Type is text/xml"),
    422: problem_example(422, "Unprocessable Entity", "key: Field required"),
}
LOGOUT_RESPONSES: dict[int | str, dict[str, Any]] = {
    204: {"description": "The cookie is taken back"},
    403: _FOREIGN,
}
