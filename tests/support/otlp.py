"""A receiver of spans as collectors are: OTLP over HTTP, on a free local port."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Received:
    """One span as it came, with the attributes of its process."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    error: bool
    seconds: float
    attributes: dict[str, Any]
    process: dict[str, Any] = field(repr=False)


class Receiver:
    """The receiver; an async context manager."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def trace(self, trace_id: str, spans: int, seconds: float = 20) -> list[Received]:
        """The spans of a trace by their begin, once there are so many."""
        async with asyncio.timeout(seconds):
            while len(found := self.of(trace_id)) < spans:  # noqa: ASYNC110 - it is told by nobody
                await asyncio.sleep(0.05)
        return found

    def of(self, trace_id: str) -> list[Received]:
        """The spans of a trace that have come."""
        return [each for each in self.spans if each.trace_id == trace_id]

    async def _receive(self, request: web.Request) -> web.Response:
        assert "application/x-protobuf" == request.headers["Content-Type"]
        wanted = ExportTraceServiceRequest.FromString(await request.read())
        for resource in wanted.resource_spans:
            process = _attributes(resource.resource)
            for scope in resource.scope_spans:
                self.spans += [_received(span, process) for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def _received(span: Span, process: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        error=span.status.code == span.status.STATUS_CODE_ERROR,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_attributes(span),
        process=process,
    )


def _attributes(holder: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes
    }
