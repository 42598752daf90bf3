"""The application, each request a span in the caller's trace."""

from opentelemetry.trace import Span, SpanKind
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.telemetry.spans import Spans, failed, parsed, within, written

UNTRACED = {"/health", "/metrics"}
"""Asked by machines, every few seconds, and nobody's work."""
_HEADER = b"traceparent"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_DIRECT = {"/orchestrate": "/orchestrate"}
_COMPLETIONS = "/completions/"
_STATUS = "/status/"
_SERVER_ERROR = 500


class TracedApp:
    """Answers as the application does, which finds the span's context in ``traceparent``."""

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        parent = within(parsed(given.decode("latin-1")))
        with self._spans.span(method, SpanKind.SERVER, parent, _attributes(scope, method)) as span:
            own = (_HEADER, written(span.get_span_context()).encode())
            headers = [each for each in scope["headers"] if each[0] != _HEADER]
            inner = {**scope, "headers": [*headers, own]}
            try:
                await self._app(inner, receive, _noting(span, send))
            finally:
                _name(span, method, inner)


def _noting(span: Span, send: Send) -> Send:
    """Sends, and has the span know how it was answered."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            span.set_attribute("http.response.status_code", status)
            if status >= _SERVER_ERROR:
                failed(span, str(status))
        await send(message)

    return sending


def _attributes(scope: Scope, method: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "http.request.method": method,
        "url.path": _path(scope),
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
    }
    if server := scope.get("server"):
        found["server.address"] = server[0]
        if server[1] is not None:
            found["server.port"] = server[1]
    return found


def _path(scope: Scope) -> str:
    """The path; a completion URL's is a permission, which nobody is to be told."""
    path: str = scope["path"]
    return f"{_COMPLETIONS}{{token}}" if path.startswith(_COMPLETIONS) else path


def _name(span: Span, method: str, scope: Scope) -> None:
    """Name the span by the route, where there is one: ids are no names."""
    if route := _route(scope):
        span.set_attribute("http.route", route)
        span.update_name(f"{method} {route}")


def _route(scope: Scope) -> str | None:
    if route := getattr(scope.get("route"), "path", None):
        return str(route)
    path = scope["path"]
    if path.startswith(_STATUS) and "/" not in path.removeprefix(_STATUS):
        return "/status/{task_id}"
    return _DIRECT.get(path)
