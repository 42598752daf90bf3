"""The transport of each call, by the scheme of its URL; all but HTTP begin with their first call.

A new transport is a module with a class of the Transport interface, a function here that makes it,
and its scheme in TRANSPORTS; what its addresses look like says orchestrator/endpoints.py.
"""

from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Protocol

from orchestrator.config import Settings
from orchestrator.transports import AgentRequest, AgentResponse, Transport
from orchestrator.transports.http import HttpTransport


class AgentTransport(Transport, Protocol):
    """One that follows changes of the configuration."""

    def configure(self, settings: Settings) -> None:
        """Go by another configuration."""
        ...


def _amqp(settings: Settings) -> AgentTransport:
    from orchestrator.transports.amqp import AmqpTransport  # noqa: PLC0415 - its client is large

    return AmqpTransport(settings.limits.max_result_bytes, settings.logins)


TRANSPORTS: Mapping[str, Callable[[Settings], AgentTransport]] = {"amqp": _amqp, "amqps": _amqp}
"""All but HTTP; what is of no scheme here is left to HTTP, which refuses it."""


class ByScheme:
    """Hands each request to the transport of its URL."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = HttpTransport(settings.limits.max_result_bytes)
        self._others: dict[Callable[[Settings], AgentTransport], AgentTransport] = {}

    def send(self, request: AgentRequest) -> Coroutine[Any, Any, AgentResponse]:
        """Send one request."""
        return self._of(request.url).send(request)

    def probe(
        self, url: str, timeout: float, expected: Collection[int] = ()
    ) -> Coroutine[Any, Any, str | None]:
        """Ask at an address whether its agent is well."""
        return self._of(url).probe(url, timeout, expected)

    def _of(self, url: str) -> Transport:
        # Nearly all are, and each call passes here.
        if url.startswith("http"):
            return self._http
        make = TRANSPORTS.get(url.partition(":")[0])
        if make is None:
            return self._http
        if make not in self._others:
            self._others[make] = make(self._settings)
        return self._others[make]

    def configure(self, settings: Settings) -> None:
        """Go by another configuration."""
        self._settings = settings
        for each in (self._http, *self._others.values()):
            each.configure(settings)

    async def close(self) -> None:
        """Release all connections."""
        for each in (self._http, *self._others.values()):
            await each.close()
