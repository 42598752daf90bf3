"""Structured logs on stdout: JSON, or readable lines on a terminal.

Our code logs events with fields; lines of libraries, which use the standard library's logging,
join the same stream in the same form. Neither payloads nor headers are ever logged.
"""

import contextlib
import json
import logging
import os
import sys
from typing import Any

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from orchestrator.config import Logging
from orchestrator.telemetry import tracing

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_NOISY = {
    # The server speaks for itself; its access log would be a line for each request.
    "uvicorn": logging.WARNING,
    "uvicorn.error": logging.WARNING,
    "uvicorn.access": logging.CRITICAL,
    # Failed attempts are logged by call_agent, with the task's fields and without a stack.
    "temporalio.activity": logging.ERROR,
    "temporalio.worker": logging.WARNING,
    "asyncio": logging.WARNING,
}


def configure(section: Logging, process: str) -> None:
    """Set up logging for this process; ``process`` (api, worker, ...) stands in every line."""
    console = section.format == "console" or (section.format == "auto" and sys.stdout.isatty())
    level = _LEVELS[section.level]

    def arrange(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """What every line has comes first."""
        first = {name: event.pop(name) for name in ("event", "level", "timestamp")}
        return {**first, "process": process, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        *tracing.log_processors(os.environ),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        arrange,
    ]
    last: list[Processor]
    if console:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(),
                # Rich's would show local variables: payloads and secrets.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    else:
        last = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    structlog.configure(
        processors=[*shared, *last],
        logger_factory=lambda *_: _Lines(sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    _join_standard_logging(shared, last, level)


def _join_standard_logging(shared: list[Processor], last: list[Processor], level: int) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, minimum in _NOISY.items():
        logging.getLogger(name).setLevel(max(level, minimum))
    logging.captureWarnings(capture=True)


class _Lines(structlog.PrintLogger):
    """Writes a line or loses it: a full disk or a closed pipe must fail no task."""

    def msg(self, message: str) -> None:
        """Write the line."""
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = error = critical = exception = msg


def _json(event: EventDict, **_: Any) -> str:
    try:
        return to_json(event, fallback=str, inf_nan_mode="strings").decode()
    except ValueError:
        # Half a character, from a path or a header that was not UTF-8: escaped, it can be written.
        return json.dumps(event, default=str)


def audit_logger() -> FilteringBoundLogger:
    """The logger of what operators do: its lines are written whatever ``logging.level`` says."""
    info = structlog.make_filtering_bound_logger(logging.INFO)
    logger: FilteringBoundLogger = structlog.wrap_logger(_Lines(), wrapper_class=info)
    return logger


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose methods take an event name and fields."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger
