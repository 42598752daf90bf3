"""Worked examples of the agents' resources for the OpenAPI page."""

from typing import Any

from orchestrator.fleet.views import AgentDetail
from orchestrator.models import Model

_AGENT: dict[str, Any] = {
    "name": "content_ingestion_agent",
    "capabilities": ["pdf", "ingestion"],
    "healthy": True,
    "breaker": "closed",
    "instances": [
        {
            "url": "http://127.0.0.1:8101",
            "weight": 1,
            "added": False,
            "draining": False,
            "health": {"state": "healthy", "reason": "", "since": "2026-01-15T10:30:00Z"},
            "breaker": {"state": "closed", "since": None, "until": None, "reason": ""},
        },
        {
            "url": "http://127.0.0.1:8102",
            "weight": 1,
            "added": True,
            "draining": True,
            "health": {
                "state": "unhealthy",
                "reason": "answered 503",
                "since": "2026-01-15T10:31:00Z",
            },
            "breaker": {
                "state": "open",
                "since": "2026-01-15T10:31:00Z",
                "until": "2026-01-15T10:31:30Z",
                "reason": "failures in a row: 5",
            },
        },
    ],
    "removed": [],
    "limits": {
        "rate": 100.0,
        "burst": 20,
        "mode": "reject",
        "max_connections": 50,
        "set_at_run_time": ["max_connections"],
    },
    "queue": {"depth": {"priority_5": 2}, "has_worker": True},
}
_FLEET = {"reachable": True, "as_of": "2026-01-15T10:31:05Z", "version": 1768473060000}
_DETAIL = _AGENT | {
    "events": [
        {
            "at": "2026-01-15T10:31:00Z",
            "agent": "content_ingestion_agent",
            "instance": "http://127.0.0.1:8102",
            "what": "breaker_opened",
            "reason": "failures in a row: 5",
            "by": "worker@4711",
        }
    ],
    "fleet": _FLEET,
}


def _problem(status: int, title: str, detail: str) -> dict[str, Any]:
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "status_code": status,
    }
    return {"description": title, "content": {"application/problem+json": {"example": body}}}


def _answer(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


def body_of(model: type[Model]) -> dict[str, Any]:
    """A JSON body of that model for the OpenAPI document."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    required = bool(schema.get("required"))
    # Enums stand among the document's own schemas already, by the answers that have them.
    schema.pop("$defs", None)
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}
    }


_UNREACHABLE = _problem(503, "Service Unavailable", "The fleet did not answer in time")
_UNKNOWN = _problem(
    404, "Not Found", "Agent 'pdf_agent' is not known; did you mean 'content_ingestion_agent'?"
)

LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _answer("All agents", {"agents": [_AGENT], "fleet": _FLEET}),
}
EVENTS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _answer("The events", {"events": _DETAIL["events"], "fleet": _FLEET}),
}
AGENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _answer("The agent", _DETAIL),
    404: _UNKNOWN,
}
ORDER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _answer("The agent as it is now", _DETAIL),
    404: _UNKNOWN,
    409: _problem(
        409,
        "Conflict",
        "http://127.0.0.1:8101 is the last instance of agent 'content_ingestion_agent'; add "
        "another first, or drain it to stop its calls",
    ),
    422: _problem(422, "Unprocessable Entity", "instnace: Extra inputs are not permitted"),
    503: _UNREACHABLE,
}
ADD_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {**_answer("It was known; the agent as it is now", _DETAIL), "model": AgentDetail},
    201: _answer("Added; the agent as it is now", _DETAIL),
    404: _UNKNOWN,
    422: _problem(422, "Unprocessable Entity", "url: Field required"),
    503: _UNREACHABLE,
}
