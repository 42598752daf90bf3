"""Structured logs on stdout: JSON, or readable lines on a terminal.

Our code logs events with fields; lines of libraries join the same stream in the same form. Neither
payloads nor headers are ever logged.
"""

import logging
import sys

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from orchestrator.config import Logging

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
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

    def arrange(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """What every line has comes first."""
        first = {name: event.pop(name) for name in ("event", "level", "timestamp")}
        return {**first, "process": process, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        arrange,
    ]
    last: list[Processor]
    if console:
        last = [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[section.level])
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose methods take an event name and fields."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger
