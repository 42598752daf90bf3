"""A real receiver of callbacks: an agent that can say of each call whether it is signed."""

from dataclasses import dataclass
from typing import Any

from standardwebhooks import Webhook

from tests.support.agents import Agent, Call

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of no service


@dataclass(frozen=True)
class Event:
    """What a call said, and under which id."""

    webhook_id: str
    type: str
    data: dict[str, Any]


def verified(call: Call, secret: str = SECRET) -> Event:
    """A call that the official package takes for signed; it raises for another."""
    said = Webhook(secret).verify(call.text, dict(call.headers))
    return Event(call.headers["webhook-id"], said["type"], said["data"])


def hook(receiver: Agent) -> str:
    """Where to call it."""
    return f"{receiver.url}/hook"
