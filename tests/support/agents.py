"""A real HTTP agent on a free local port that answers as it is told and remembers its calls.

    async with Agent(Reply(status=503), Reply(body={"text": "done"})) as agent:
        ...  # let something POST to agent.url
        [first, second] = agent.calls

The first call of a task gets the first reply, its second call the second, and so on; the last
reply repeats. Calls belong to one task when they carry the same Idempotency-Key. For anything else
a function from call to reply decides.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

DEADLINE_SECONDS = 20.0
"""How long the waiting methods wait before they fail the test."""


@dataclass(frozen=True)
class Reply:
    """How one call is answered.

    Args:
        status: the HTTP status.
        body: sent as JSON, or as it is if bytes or text.
        headers: beside Content-Type.
        delay: seconds before the answer.
        hang: never answer.
        reset: close the connection instead of answering.
        raw: written to the connection as it is, which is then closed.
    """

    status: int = 200
    body: Any = field(default_factory=lambda: {"text": "done"})
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    hang: bool = False
    reset: bool = False
    raw: bytes | None = None


@dataclass
class Call:
    """One call as the agent saw it."""

    path: str
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    body: Any
    at: float
    """Of the loop's clock."""
    text: str = ""
    """The body as it came."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the caller closed its connection before the answer."""

    async def abandonment(self) -> None:
        """Wait until the caller has closed its connection."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.abandoned.wait()


class Agent:
    """The agent; an async context manager."""

    def __init__(self, *replies: Reply, decide: Callable[[Call], Reply] | None = None) -> None:
        self.calls: list[Call] = []
        self.url = ""
        self.most_at_once = 0
        """Of the calls that were answered together, health checks left out."""
        self._at_once = 0
        self._replies: Sequence[Reply] = replies or (Reply(),)
        self._decide = decide or self._in_turn
        self._heard = asyncio.Condition()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def script(self, *replies: Reply) -> None:
        """Answer like this from now on."""
        self._replies = replies
        self._decide = self._in_turn

    def behave(self, decide: Callable[[Call], Reply]) -> None:
        """Answer each call by a function from now on."""
        self._decide = decide

    def work(self) -> list[Call]:
        """The calls that are not health checks."""
        return [each for each in self.calls if each.path != "/health"]

    def release(self) -> None:
        """Let the calls that hang be answered, and hang no more."""
        self._released.set()

    async def called(self, times: int = 1) -> Call:
        """Wait until there have been so many calls; returns the last of them."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._heard:
            await self._heard.wait_for(lambda: len(self.calls) >= times)
        return self.calls[times - 1]

    def calls_of(self, task_id: str) -> list[Call]:
        """The calls of one task."""
        return [each for each in self.calls if each.headers.get("Idempotency-Key") == task_id]

    def _in_turn(self, call: Call) -> Reply:
        key = call.headers.get("Idempotency-Key")
        turn = sum(1 for each in self.calls if each.headers.get("Idempotency-Key") == key)
        return self._replies[min(turn, len(self._replies)) - 1]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        call = Call(
            path=request.path_qs,
            headers=request.headers.copy(),
            body=json.loads(text) if text else None,
            at=asyncio.get_running_loop().time(),
            text=text,
        )
        async with self._heard:
            self.calls.append(call)
            self._heard.notify_all()
        is_work = call.path != "/health"
        self._at_once += is_work
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            response = await self._carry_out(self._decide(call), request)
        except asyncio.CancelledError:
            call.abandoned.set()
            raise
        finally:
            self._at_once -= is_work
        call.answered.set()
        return response

    async def _carry_out(self, reply: Reply, request: web.Request) -> web.StreamResponse:
        if reply.hang:
            await self._released.wait()
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if request.transport is not None and (reply.reset or reply.raw is not None):
            if reply.raw is not None:
                request.transport.write(reply.raw)
                request.transport.close()
            else:
                request.transport.abort()
            return web.Response()
        return web.Response(status=reply.status, headers=reply.headers, **_content(reply.body))


def _content(body: Any) -> dict[str, Any]:
    if isinstance(body, bytes):
        return {"body": body}
    if isinstance(body, str):
        return {"text": body}
    return {"body": json.dumps(body).encode(), "content_type": "application/json"}
