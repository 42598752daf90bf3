"""How a call reaches an agent: one interface, one module for each protocol.

A transport sends one request and returns the agent's answer as decoded JSON, or raises a
CallError that says what went wrong and whether another attempt may help. It never retries.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class AgentRequest:
    """One attempt: the whole address, JSON payload, headers, and the seconds it may take.

    Without a payload it only asks what the agent has at that address.
    """

    agent: str
    url: str
    payload: dict[str, Any] | None
    headers: Mapping[str, str]
    timeout: float


@dataclass(frozen=True)
class AgentResponse:
    """The answer of an agent that did its work; ``body`` is JSON, None when it was empty.

    One that only took the call (202) may say where its answer will be, and after how many seconds
    to look.
    """

    status: int
    body: Any
    location: str | None = None
    retry_after: float | None = None


class Transport(Protocol):
    """Sends requests to agents."""

    async def send(self, request: AgentRequest) -> AgentResponse:
        """Send one request.

        Raises:
            CallError: no usable answer.
        """
        ...

    async def probe(self, url: str, timeout: float, expected: Collection[int] = ()) -> str | None:
        """Ask whether the agent at an address is well; None if it is, else what is wrong.

        Args:
            url: the instance's address, with the path of its health check.
            timeout: seconds that it may take.
            expected: the statuses that are well, where the protocol has any.
        """
        ...

    async def close(self) -> None:
        """Release the connections."""
        ...
