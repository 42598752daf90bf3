"""Agents over HTTP, each request a span whose context the agent gets."""

from opentelemetry.trace import SpanKind

from orchestrator.errors import CallError
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
from orchestrator.transports.http import HttpTransport

_HEADER = "traceparent"


class TracedTransport(HttpTransport):
    """The same, with a client span around each request.

    Its parent is the span under way, unless the request belongs to another trace: that of an item
    which shares its batch with others.
    """

    def __init__(self, max_result_bytes: int, spans: Spans) -> None:
        super().__init__(max_result_bytes)
        self._spans = spans

    async def send(self, request: AgentRequest) -> AgentResponse:
        """POST the payload, as the parent class does."""
        given, here = parsed(request.headers.get(_HEADER)), current()
        if given is not None and (here is None or here.trace_id != given.trace_id):
            here = given
        method = "GET" if request.payload is None else "POST"
        with self._spans.span(
            method, SpanKind.CLIENT, within(here), _attributes(request, method)
        ) as span:
            headers = {**request.headers, _HEADER: written(span.get_span_context())}
            traced = AgentRequest(
                request.agent, request.url, request.payload, headers, request.timeout
            )
            try:
                response = await super().send(traced)
            except CallError as error:
                if error.status is not None:
                    span.set_attribute("http.response.status_code", error.status)
                failed(span, str(error.status) if error.status else type(error).__name__)
                raise
            span.set_attribute("http.response.status_code", response.status)
            return response


def _attributes(request: AgentRequest, method: str) -> dict[str, str | int]:
    attempt = int(request.headers.get("X-Attempt", "1"))
    found: dict[str, str | int] = {
        "http.request.method": method,
        "url.full": without_secrets(request.url),
        **server_of(request.url),
        "orchestrator.agent": request.agent,
        "orchestrator.task_id": request.headers.get("X-Task-ID", ""),
        "orchestrator.attempt": attempt,
    }
    if attempt > 1:
        found["http.request.resend_count"] = attempt - 1
    return found
