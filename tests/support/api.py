"""A real HTTP server that answers as it is told, for those who speak to the API."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROBLEM = "application/problem+json"
AT = "2026-01-15T10:30:00Z"


@dataclass(frozen=True)
class Answer:
    """One answer: ``body`` as JSON, or as it is if bytes; with ``cut`` the connection breaks."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True)
class Heard:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


@dataclass
class ScriptedApi:
    """The server: the answers come one after the other, the last repeats."""

    url: str
    answers: list[Answer]
    heard: list[Heard] = field(default_factory=list)
    decide: Callable[[Heard], Answer] | None = None

    def answer(self, request: Heard) -> Answer:
        """The next one."""
        self.heard.append(request)
        if self.decide:
            return self.decide(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def problem(status: int, detail: str, retry_after: str | None = None, **extra: Any) -> Answer:
    """A problem document."""
    headers = {"Content-Type": PROBLEM} | ({"Retry-After": retry_after} if retry_after else {})
    return Answer(status, {"detail": detail, "status_code": status, **extra}, headers)


def task(state: str = "completed", **fields: Any) -> dict[str, Any]:
    """A status."""
    return {"task_id": "t-1", "status": state, "created_at": AT, "updated_at": AT, **fields}


def batch(state: str = "completed", **fields: Any) -> dict[str, Any]:
    """A batch's status."""
    base = {"batch_id": "b-1", "status": state, "total": 2, "created_at": AT, "updated_at": AT}
    return {**base, **fields}


@contextlib.contextmanager
def scripted(*answers: Answer) -> Iterator[ScriptedApi]:
    """The server on a free port, from now until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    api = ScriptedApi(f"http://127.0.0.1:{server.server_port}", list(answers) or [Answer()])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Heard(self.command, self.path, headers, self.rfile.read(length))
            answer = api.answer(request)
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body)
            content = body if isinstance(body, bytes) else body.encode()
            self.send_response(answer.status)
            for name, value in (
                {"Content-Type": "application/json"} | dict(answer.headers)
            ).items():
                self.send_header(name, value)
            size = len(content) + (1000 if answer.cut else 0)
            self.send_header("Content-Length", str(0 if answer.status == 204 else size))
            self.end_headers()
            self.wfile.write(b"" if answer.status == 204 else content)
            self.close_connection = self.close_connection or answer.cut

        do_GET = do_POST = do_DELETE = handle_one  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server.RequestHandlerClass = Handler
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
