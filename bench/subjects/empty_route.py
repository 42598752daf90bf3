"""The floor of HTTP: an empty FastAPI route under the same server as the product's API.

``python -m bench.subjects.empty_route PORT`` serves it.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from itertools import count

import uvicorn
from fastapi import FastAPI

from bench.children import child
from bench.stage import PAYLOAD
from bench.subject import Order, Outcome, Place, Send, submit
from bench.subject import posting as posting_to
from tests.support.stack import free_port


class EmptyRoute:
    """The route, served by a process of its own."""

    durability = "stores nothing"
    versions = f"FastAPI {version('fastapi')}, uvicorn {version('uvicorn')}"

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self._pid = pid

    async def run(self, order: Order) -> Outcome:
        """Send the requests; an answer is all there is."""
        numbers = count()

        @asynccontextmanager
        async def connect() -> AsyncIterator[Send]:
            async with posting_to(self._url, "/", PAYLOAD, "status") as send:

                async def numbered() -> str:
                    await send()
                    return str(next(numbers))

                yield numbered

        submissions = await submit(order, connect)
        submissions.stored()
        return submissions.outcome({})

    def processes(self) -> dict[str, list[int]]:
        """The server."""
        return {"api": [self._pid]}

    async def stored_bytes(self) -> None:
        """None: nothing is stored."""


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[EmptyRoute]:
    """The route, served."""
    port, log = free_port(), place.directory / "api.log"
    command = (sys.executable, "-m", "bench.subjects.empty_route", str(port))
    async with child(*command, log=log, port=port) as server:
        yield EmptyRoute(f"http://127.0.0.1:{port}", server.pid)


def main() -> None:
    """Serve until ended."""
    app = FastAPI()

    @app.post("/")
    async def nothing() -> dict[str, str]:
        return {"status": "ok"}

    port = int(sys.argv[1])
    uvicorn.run(app, port=port, http="httptools", loop="uvloop", access_log=False, log_config=None)


if __name__ == "__main__":
    main()
