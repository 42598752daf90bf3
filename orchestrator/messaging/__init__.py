"""What goes to and comes from a broker: tasks that are taken in, events and replies that are sent.

RabbitMQ and Redis are a module each; everything else here knows neither.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.models import ReplyTo

REDIS_PORT = 6379


@dataclass(frozen=True)
class Message:
    """A task as it came from the broker.

    Args:
        body: what would be the body of POST /orchestrate.
        id: its idempotency key.
        content_type: of the body, where the sender told.
        priority: the broker's own, which stands for the body's where that has none.
        reply: where the sender waits for the result.
        traceparent: the sender's W3C trace context.
    """

    body: bytes
    id: str
    content_type: str | None = None
    priority: int | None = None
    reply: ReplyTo | None = None
    traceparent: str | None = None


Take = Callable[[Message], Awaitable[None]]
"""Starts a message's task; returns once the engine has it.

Raises MessageRefused where it can never be started, MessageDelayed where it can be later.
"""
