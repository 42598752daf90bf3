"""The AsyncAPI 3 document of what this orchestrator takes from its broker and sends to it."""

from typing import Any

from orchestrator import __version__
from orchestrator.config import MessageQueue, Settings
from orchestrator.endpoints import AMQP_PORTS
from orchestrator.messaging import REDIS_PORT
from orchestrator.messaging.events import CONTENT_TYPE, EventType, source_of
from orchestrator.models import TaskRequest
from orchestrator.statuses import TaskStatus

_SCHEMAS = "#/components/schemas/"
_REFUSED = {
    "type": "object",
    "required": ["status", "status_code", "detail"],
    "properties": {
        "status": {"const": "refused"},
        "status_code": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


def document(settings: Settings) -> dict[str, Any]:
    """The document by a configuration; without a broker it has no channels."""
    queue = settings.message_queue
    channels, operations = dict[str, Any](), dict[str, Any]()
    if queue.takes_tasks:
        channels |= _ingest_channels(queue)
        operations |= {
            "takeTask": _operation("receive", "tasks", "Start the task of a message"),
            "buryMessage": _operation("send", "deadLetters", "Keep what cannot be a task"),
            "reply": _operation("send", "replies", "Answer a message that has a reply-to"),
        }
    if queue.sends_events:
        channels["events"] = _events_channel(queue)
        operations["tell"] = _operation("send", "events", "Tell what happens")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Orchestration Agent {settings.agent.name}",
            "version": __version__,
            "description": "Tasks by messages, replies, and events as CloudEvents 1.0.",
        },
        "defaultContentType": "application/json",
        "servers": {"broker": _server(queue)} if queue.type != "none" else {},
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages(settings), "schemas": _schemas()},
    }


def _server(queue: MessageQueue) -> dict[str, Any]:
    if queue.type == "rabbitmq":
        protocol = "amqps" if queue.tls else "amqp"
        port = queue.port or AMQP_PORTS[protocol]
    else:
        port = queue.port or REDIS_PORT
        protocol = "rediss" if queue.tls else "redis"
    # A URL may hold a password, and is not shown.
    host = "as message_queue.url says" if queue.url else f"{queue.host}:{port}"
    return {"host": host, "protocol": protocol}


def _operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
    }


def _ingest_channels(queue: MessageQueue) -> dict[str, Any]:
    return {
        "tasks": _channel(queue, queue.queue, ["task"], "The body of POST /orchestrate"),
        "deadLetters": _channel(
            queue,
            queue.dead_letter_queue,
            ["deadLetter"],
            "Messages that cannot be tasks, unchanged, with x-error, x-status and x-queue",
        ),
        "replies": {
            "address": None,
            "description": "What the message named: reply-to of AMQP, or a stream's `reply_to`",
            "messages": {name: _message(name) for name in ("result", "refused")},
        },
    }


def _channel(
    queue: MessageQueue, address: str, messages: list[str], description: str
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "address": address,
        "description": description,
        "messages": {name: _message(name) for name in messages},
    }
    if queue.type == "rabbitmq":
        kept = {"name": address, "durable": True, "exclusive": False, "autoDelete": False}
        found["bindings"] = {"amqp": {"is": "queue", "queue": kept}}
    return found


def _events_channel(queue: MessageQueue) -> dict[str, Any]:
    found: dict[str, Any] = {
        "address": "{type}.{agent}",
        "description": f"Routing keys of the topic exchange {queue.events_exchange}",
        "parameters": {
            "type": {"enum": [kind.value for kind in EventType]},
            "agent": {"description": "The agent's name"},
        },
        "messages": {kind.value: _message(kind.value) for kind in EventType},
    }
    if queue.type == "rabbitmq":
        exchange = {"name": queue.events_exchange, "type": "topic", "durable": True}
        found["bindings"] = {"amqp": {"is": "routingKey", "exchange": exchange}}
    else:
        found["address"] = f"{queue.events_exchange}.{{type}}.{{agent}}"
        found["description"] = "Channels of PUBLISH; PSUBSCRIBE hears many"
    return found


def _message(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/messages/{name}"}


def _messages(settings: Settings) -> dict[str, Any]:
    """All messages; each event is an envelope of its own type."""
    found: dict[str, Any] = {
        "task": {
            "summary": "A task; its message id is its idempotency key",
            "contentType": "application/json",
            "payload": {"$ref": f"{_SCHEMAS}TaskRequest"},
        },
        "deadLetter": {
            "summary": "A message that cannot be a task",
            "headers": {
                "type": "object",
                "required": ["x-error", "x-status"],
                "properties": {
                    "x-error": {"type": "string"},
                    "x-status": {"type": ["integer", "string"]},
                    "x-queue": {"type": "string"},
                },
            },
        },
        "result": {
            "summary": "How the task has ended, as GET /status tells it",
            "payload": {"$ref": f"{_SCHEMAS}TaskStatus"},
        },
        "refused": {"summary": "Why the message cannot be a task", "payload": _REFUSED},
    }
    source = source_of(settings.agent.name)
    for kind in EventType:
        found[kind.value] = {
            "name": kind.value,
            "contentType": CONTENT_TYPE,
            "payload": _envelope(kind, source),
        }
    return found


def _envelope(kind: EventType, source: str) -> dict[str, Any]:
    data: dict[str, Any] = {"type": "object", "required": ["agent"]}
    if kind is not EventType.AGENT_CHANGED:
        data["required"] = ["task_id", "agent"]
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject", "time", "data"],
        "additionalProperties": False,
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "description": "The same however often it is sent"},
            "source": {"const": source},
            "type": {"const": kind.value},
            "subject": {"type": "string"},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "traceparent": {"type": "string"},
            "data": data,
        },
    }


def _schemas() -> dict[str, Any]:
    """The JSON schemas of our models and of what they are made of."""
    found: dict[str, Any] = {}
    for model in (TaskRequest, TaskStatus):
        schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found
