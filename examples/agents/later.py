"""Answers on request that come later: 202 at once, and the answer to the call's completion URL."""

import asyncio
from typing import Any

import aiohttp
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from examples.agents.faults import Attempt, Delays

COMPLETION_URL = "X-Completion-URL"
_PAUSE_SECONDS = 2.0
_TRIES = 30
_SERVER_ERROR = 500


class Later(BaseModel):
    """When the answer comes, how often progress is told before, and whether it is a failure.

    With ``error`` the agent says that it failed; with ``times`` only on the first so many attempts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float = Field(1, ge=0, le=86_400)
    progress: int = Field(0, ge=0, le=100)
    error: str | None = None
    retryable: bool = False
    times: int | None = Field(None, ge=0, le=1000)

    def failure(self, attempt: Attempt) -> dict[str, Any] | None:
        """Give what is posted instead of a result, or None if the attempt is to succeed."""
        fails = self.error is not None and (self.times is None or attempt.number <= self.times)
        return {"error": self.error, "retryable": self.retryable} if fails else None


class Latecomers:
    """The answers that are yet to come.

    Args:
        delays: The waits, which a closing server cuts short.
    """

    def __init__(self, delays: Delays) -> None:
        self._delays = delays
        self._under_way: set[asyncio.Task[None]] = set()

    def accept(self, request: Request, later: Later, answer: bytes) -> Response:
        """Take the call, and answer it later."""
        url = request.headers.get(COMPLETION_URL)
        if url is None:
            detail = f"_later needs the header {COMPLETION_URL}, to which the answer is posted"
            return JSONResponse({"detail": detail}, 422)
        task = asyncio.create_task(self._answer(url, later, Attempt.of(request), answer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return JSONResponse({"detail": "The answer comes later"}, 202)

    async def _answer(self, url: str, later: Later, attempt: Attempt, answer: bytes) -> None:
        async with aiohttp.ClientSession() as session:
            steps = later.progress + 1
            for step in range(1, steps + 1):
                await self._delays.wait(later.seconds / steps)
                if step < steps:
                    await self._post(session, url, _progress(step, steps))
            failure = later.failure(attempt)
            body = JSONResponse(failure).body if failure else b'{"result":%b}' % answer
            await self._post(session, url, bytes(body))

    async def _post(self, session: aiohttp.ClientSession, url: str, body: bytes) -> None:
        """Post until it is taken or refused; what is away for a minute is given up."""
        headers = {"Content-Type": "application/json"}
        for _ in range(_TRIES):
            try:
                async with session.post(url, data=body, headers=headers) as response:
                    if response.status < _SERVER_ERROR:
                        return
            except aiohttp.ClientError:
                pass  # it may be back soon
            await self._delays.wait(_PAUSE_SECONDS)


def _progress(step: int, steps: int) -> bytes:
    return bytes(JSONResponse({"progress": {"percent": round(100 * step / steps)}}).body)
