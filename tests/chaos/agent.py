"""One agent of the fault suite: a process that may be killed, and whose record outlives it.

    python -m tests.chaos.agent PORT RECORD

Each line of the record is a call that began or ended. A call's ``replies`` say how the first,
second, ... call of its task is answered, and the last of them all further ones.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.chaos.replies import FORBIDDEN, Kind, as_json, carry_out

MAX_BODY_BYTES = 8 * 1024 * 1024


class Record:
    """The calls, as lines of a file; each is in the kernel before the call goes on."""

    def __init__(self, path: Path) -> None:
        self._seen = Counter[str](
            json.loads(line)["key"]
            for line in (path.read_text().splitlines() if path.exists() else ())
            if '"begin"' in line
        )
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._number = 0

    def turn(self, key: str) -> int:
        """How many calls of the task came before."""
        self._seen[key] += 1
        return self._seen[key] - 1

    def write(self, what: str, call: str, **facts: Any) -> None:
        """One line."""
        event = {"what": what, "call": call, "at": time.monotonic(), **facts}
        os.write(self._file, as_json(event))

    def next_call(self) -> str:
        """The name of a call; no other process gives the same."""
        self._number += 1
        return f"{os.getpid()}.{self._number}"


def application(record: Record) -> web.Application:
    """The agent's routes."""

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def forbidden(request: web.Request) -> web.Response:
        record.write("forbidden", record.next_call(), key=request.headers.get("Idempotency-Key"))
        return web.Response(status=404)

    async def work(request: web.Request) -> web.StreamResponse:
        payload = await request.json()
        key = request.headers.get("Idempotency-Key", "")
        replies = payload["replies"]
        kind = Kind(replies[min(record.turn(key), len(replies) - 1)])
        call = record.next_call()
        record.write(
            "begin",
            call,
            key=key,
            number=payload["number"],
            agent=request.path.rpartition("/")[2],
            kind=kind,
            task_id=request.headers.get("X-Task-ID"),
            attempt=request.headers.get("X-Attempt"),
            peer=request.transport.get_extra_info("peername")[1] if request.transport else 0,
        )
        try:
            return await carry_out(kind, request, {"number": payload["number"], "key": key})
        finally:
            record.write("end", call)

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/health", health)
    app.router.add_route("*", FORBIDDEN, forbidden)
    app.router.add_post("/jobs/{agent}", work)
    return app


def main() -> None:
    """Serve until killed."""
    port, record = int(sys.argv[1]), Record(Path(sys.argv[2]))
    web.run_app(
        application(record),
        host="127.0.0.1",
        port=port,
        handler_cancellation=True,
        access_log=None,
        print=None,
    )


if __name__ == "__main__":
    main()
