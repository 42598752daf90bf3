"""Spans of requests, tasks and calls, in the caller's trace.

What belongs together is found without anything being handed on but the caller's trace context:
the id of a workflow's span is made of its run's id, so that whoever works for the run knows it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from structlog.typing import EventDict, WrappedLogger

from orchestrator import __version__
from orchestrator.endpoints import AMQP_PORTS
from orchestrator.traces import trace_id_of, traced

FLUSH_MILLISECONDS = 5_000
SERVICE = "orchestration-agent"
"""Unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES name another."""

_HEX = 16
_PORTS = {"https": 443, **AMQP_PORTS}


class _Ids(RandomIdGenerator):
    """Random ids, but for the next span of who asks for a certain one."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: ContextVar[SpanContext | None] = ContextVar("chosen", default=None)

    def generate_span_id(self) -> int:
        chosen = self.chosen.get()
        return chosen.span_id if chosen else super().generate_span_id()

    def generate_trace_id(self) -> int:
        chosen = self.chosen.get()
        return chosen.trace_id if chosen else super().generate_trace_id()


class Spans:
    """Makes spans, and sends them to the exporter in the background."""

    def __init__(self, exporter: SpanExporter, process: str) -> None:
        self._ids = _Ids()
        # OTEL_TRACES_SAMPLER, OTEL_BSP_* and OTEL_RESOURCE_ATTRIBUTES are read by the SDK.
        self._provider = TracerProvider(resource=_resource(process), id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("orchestrator", __version__)

    @classmethod
    def to(cls, exporter: str, process: str) -> "Spans":
        """With an exporter by name: ``otlp`` or ``console``."""
        if exporter == "console":
            return cls(ConsoleSpanExporter(), process)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,  # it takes a while to load
        )

        return cls(OTLPSpanExporter(), process)

    def close(self) -> None:
        """Send what is left, as far as that goes within some seconds."""
        self._provider.force_flush(FLUSH_MILLISECONDS)
        self._provider.shutdown()

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanKind,
        parent: Context | None,
        attributes: Mapping[str, str | int],
    ) -> Iterator[Span]:
        """A span around a block; without a parent that of the caller, or a trace of its own."""
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=attributes,
            record_exception=False,  # they may quote what agents said
            set_status_on_exception=False,
        ) as span:
            yield span

    def whole(
        self,
        name: str,
        context: SpanContext,
        parent: Context,
        times: tuple[datetime, datetime],
        attributes: Mapping[str, str | int],
        error: str | None,
    ) -> None:
        """A span of that id which has begun and ended already."""
        token = self._ids.chosen.set(context)
        try:
            span = self._tracer.start_span(
                name, context=parent, attributes=attributes, start_time=_nanoseconds(times[0])
            )
        finally:
            self._ids.chosen.reset(token)
        if error is not None:
            failed(span, error)
        span.end(_nanoseconds(times[1]))

    def run_of(self, run_id: str, task_id: str, given: str | None) -> tuple[SpanContext, Context]:
        """The span of a workflow's run, whoever makes it, and the parent of that.

        Args:
            run_id: of the workflow.
            task_id: of which the trace is made where no other was given.
            given: the trace context that the task came with.
        """
        parent = parsed(given)
        digest = hashlib.sha256(run_id.encode()).digest()
        span_id = int.from_bytes(digest[:8]) or 1
        if parent is not None:
            flags, trace_id = parent.trace_flags, parent.trace_id
        else:
            trace_id = int(trace_id_of(task_id), _HEX)
            flags = self._root_flags(trace_id)
        context = SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags)
        return context, within(parent) if parent else Context()

    def _root_flags(self, trace_id: int) -> TraceFlags:
        """Whether a trace of that id is sampled that begins here."""
        answer = self._provider.sampler.should_sample(Context(), trace_id, "")
        sampled = answer.decision is Decision.RECORD_AND_SAMPLE
        return TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)


def parsed(traceparent: str | None) -> SpanContext | None:
    """A W3C trace context; None where it is none."""
    if traceparent is None or not traced(traceparent):
        return None
    _, trace_id, span_id, flags = traceparent.split("-")[:4]
    context = SpanContext(
        int(trace_id, _HEX), int(span_id, _HEX), is_remote=True, trace_flags=_flags(flags)
    )
    return context if context.is_valid else None


def _flags(text: str) -> TraceFlags:
    return TraceFlags(int(text, _HEX) & TraceFlags.SAMPLED)


def within(context: SpanContext | None) -> Context:
    """What makes spans children of that one; without one, roots."""
    if context is None:
        return Context()
    return trace.set_span_in_context(NonRecordingSpan(context), Context())


def current() -> SpanContext | None:
    """The span under way, if there is one."""
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


def written(context: SpanContext) -> str:
    """A traceparent header."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def failed(span: Span, kind: str) -> None:
    """Mark a span as that of a failure of some kind."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def without_secrets(url: str) -> str:
    """The URL without user, password and query, which may hold keys."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def server_of(url: str) -> dict[str, str | int]:
    """The attributes that name the server of a URL."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def add_trace_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Have log lines name the span under way."""
    if context := current():
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _resource(process: str) -> Resource:
    own = {"service.version": __version__, "orchestrator.process": process}
    found = Resource.create(own)
    # The SDK's own word for nobody having named it.
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: SERVICE}))
    return found


def _nanoseconds(when: datetime) -> int:
    return int(when.timestamp() * 1e9)
