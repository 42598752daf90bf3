"""Whether spans are wanted, by the standard OTEL_* variables; only then is more loaded."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from structlog.typing import Processor

from orchestrator.errors import StartupError

if TYPE_CHECKING:
    from orchestrator.telemetry.spans import Spans

EXPORTERS = ("otlp", "console", "none")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def exporter(environ: Mapping[str, str]) -> str | None:
    """Where spans go: ``otlp``, ``console``, or None where none are wanted.

    Raises:
        StartupError: a variable names what this service does not have.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    named = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if named and named not in EXPORTERS:
        raise StartupError(
            f"OTEL_TRACES_EXPORTER is '{named}'; this service has {', '.join(EXPORTERS)}"
        )
    chosen = named or ("otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none")
    if chosen == "otlp":
        _check_protocol(environ)
    return None if chosen == "none" else chosen


def log_processors(environ: Mapping[str, str]) -> list[Processor]:
    """What has each log line name the span that it was written in."""
    if exporter(environ) is None:
        return []
    from orchestrator.telemetry.spans import add_trace_id  # noqa: PLC0415 - as below

    return [add_trace_id]


def _check_protocol(environ: Mapping[str, str]) -> None:
    name = next((name for name in _PROTOCOLS if environ.get(name)), None)
    if name is not None and environ[name].strip() != _PROTOCOL:
        raise StartupError(
            f"{name} is '{environ[name]}'; spans are exported by {_PROTOCOL} only (port 4318 of "
            "most collectors)"
        )


@asynccontextmanager
async def tracing(process: str) -> AsyncIterator["Spans | None"]:
    """What makes and exports this process's spans, flushed at the end; None where none are wanted.

    Raises:
        StartupError: a variable is wrong.
    """
    chosen = exporter(os.environ)
    if chosen is None:
        yield None
        return
    from orchestrator.telemetry.spans import Spans  # noqa: PLC0415 - only who traces pays for it

    spans = Spans.to(chosen, process)
    try:
        yield spans
    finally:
        await asyncio.to_thread(spans.close)
