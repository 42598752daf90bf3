"""Run the sample agents: ``python -m examples.agents --host 127.0.0.1 --port 8100``."""

import argparse
import json
import logging
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn

from examples.agents.app import create_app
from examples.agents.catalog import CATALOG
from examples.agents.faults import Delays

_LAST_PORT = 65535
_BACKLOG = 2048
_BROKEN_OFF = "ASGI callable returned without completing response."
# Longer than callers keep idle connections, so that it is never this side that closes one in use.
_KEEP_ALIVE_SECONDS = 75
_DRAIN_SECONDS = 20


class Server(uvicorn.Server):
    """Says on stdout when it takes requests, and ends the waits of faults when it stops."""

    def __init__(self, delays: Delays) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(delays),
                access_log=False,
                lifespan="off",
                log_config=None,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            ),
        )
        self._delays = delays

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and say so."""
        await super().startup(sockets)
        for listener in sockets or ():
            host, port, *_ = listener.getsockname()
            ready = {"event": "ready", "host": host, "port": port, "agents": len(CATALOG)}
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking requests and finish those under way."""
        self._delays.close()
        super().handle_exit(sig, frame)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    arguments = _arguments()
    # The server raises its signal again once it has drained; then this ends the process quietly.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    _quiet_logs()
    try:
        listener = _listen(arguments.host, arguments.port)
    except OSError as error:
        where = f"{arguments.host}:{arguments.port}"
        sys.exit(f"sample agents: cannot listen on {where}: {error.strerror or error}")
    with listener:
        Server(Delays()).run(sockets=[listener])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.agents", description=__doc__)
    host = os.environ.get("SAMPLE_AGENTS_HOST", "127.0.0.1")
    port = os.environ.get("SAMPLE_AGENTS_PORT", "8100")
    parser.add_argument("--host", default=host, help="address to listen on (%(default)s)")
    parser.add_argument("--port", default=port, type=_port, help="port, 0 for any (%(default)s)")
    return parser.parse_args()


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _LAST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to {_LAST_PORT}")
    return int(text)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(_BACKLOG)
    return listener


def _quiet_logs() -> None:
    logging.basicConfig(level=logging.WARNING)
    # What pypdf finds odd in a file that it can read is no news here.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    # A response broken off is a fault that someone asked for.
    logging.getLogger("uvicorn.error").addFilter(lambda log: log.getMessage() != _BROKEN_OFF)


if __name__ == "__main__":
    main()
