"""How a call reaches an agent: one interface, one module for each protocol.

A transport sends one request and returns the agent's answer as decoded JSON, or raises a
CallError that says what went wrong and whether another attempt may help. It never retries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class AgentRequest:
    """One attempt: the whole address, JSON payload, headers, and the seconds it may take."""

    agent: str
    url: str
    payload: dict[str, Any]
    headers: Mapping[str, str]
    timeout: float


@dataclass(frozen=True)
class AgentResponse:
    """The answer of an agent that did its work; ``body`` is JSON, None when it was empty."""

    status: int
    body: Any


class Transport(Protocol):
    """Sends requests to agents."""

    async def send(self, request: AgentRequest) -> AgentResponse:
        """Send one request.

        Raises:
            CallError: no usable answer.
        """
        ...

    async def close(self) -> None:
        """Release the connections."""
        ...
