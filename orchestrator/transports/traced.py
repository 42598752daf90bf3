"""Calls of agents, each a span whose context the agent gets."""

from collections.abc import Collection
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from orchestrator.call_errors import CallError
from orchestrator.config import Settings
from orchestrator.endpoints import is_http
from orchestrator.telemetry.spans import (
    Spans,
    current,
    failed,
    parsed,
    server_of,
    within,
    without_secrets,
    written,
)
from orchestrator.transports import AgentRequest, AgentResponse
from orchestrator.transports.by_scheme import AgentTransport

_HEADER = "traceparent"


class TracedTransport:
    """Another transport, with a client span around each request.

    Its parent is the span under way, unless the request belongs to another trace: that of an item
    which shares its batch with others.
    """

    def __init__(self, transport: AgentTransport, spans: Spans) -> None:
        self._transport = transport
        self._spans = spans

    async def send(self, request: AgentRequest) -> AgentResponse:
        """Send the request, as the transport does."""
        given, here = parsed(request.headers.get(_HEADER)), current()
        if given is not None and (here is None or here.trace_id != given.trace_id):
            here = given
        name, attributes, status_key = _described(request)
        with self._spans.span(name, SpanKind.CLIENT, within(here), attributes) as span:
            headers = {**request.headers, _HEADER: written(span.get_span_context())}
            traced = AgentRequest(
                request.agent, request.url, request.payload, headers, request.timeout
            )
            try:
                response = await self._transport.send(traced)
            except CallError as error:
                if error.status is not None:
                    span.set_attribute(status_key, error.status)
                failed(span, str(error.status) if error.status else type(error).__name__)
                raise
            span.set_attribute(status_key, response.status)
            return response

    async def probe(self, url: str, timeout: float, expected: Collection[int] = ()) -> str | None:
        """Ask whether the agent is well, without a span."""
        return await self._transport.probe(url, timeout, expected)

    def configure(self, settings: Settings) -> None:
        """Go by another configuration."""
        self._transport.configure(settings)

    async def close(self) -> None:
        """Release the connections."""
        await self._transport.close()


def _described(request: AgentRequest) -> tuple[str, dict[str, str | int], str]:
    """Name and attributes of the span, and what the answer's status is called in it."""
    attempt = int(request.headers.get("X-Attempt", "1"))
    found: dict[str, str | int] = {
        "url.full": without_secrets(request.url),
        **server_of(request.url),
        "orchestrator.agent": request.agent,
        "orchestrator.task_id": request.headers.get("X-Task-ID", ""),
        "orchestrator.attempt": attempt,
    }
    if is_http(request.url):
        method = "GET" if request.payload is None else "POST"
        again = {"http.request.resend_count": attempt - 1} if attempt > 1 else {}
        return method, found | {"http.request.method": method} | again, "http.response.status_code"
    queue = urlsplit(request.url).path.rpartition("/")[2]
    messaging = {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": "send",
        "messaging.destination.name": queue,
    }
    return f"send {queue}", found | messaging, "orchestrator.response.status_code"
