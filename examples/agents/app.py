"""The sample agents as one HTTP application, each below a path prefix of its own."""

import json
import math
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from examples.agents.catalog import CATALOG, Entry
from examples.agents.contract import Answer, Payload, Refusal, explain
from examples.agents.faults import Attempt, Delays, Fault
from examples.agents.later import Latecomers, Later
from examples.agents.replay import Answers

_FAULT = "_fault"
_LATER = "_later"
_MAX_BODY_BYTES = 16 * 1024 * 1024


def create_app(delays: Delays | None = None) -> Starlette:
    """Build the application.

    Args:
        delays: The waits of its faults; whoever closes the server closes them too.

    Returns:
        An ASGI application with its own memory of faults and answers.
    """
    delays, answers = delays or Delays(), Answers()
    services = [Service(entry, answers, delays) for entry in CATALOG.values()]
    mounts = [Mount(f"/{service.entry.agent}", routes=service.routes()) for service in services]
    return Starlette(
        routes=[Route("/", _index), *mounts],
        exception_handlers={HTTPException: _problem},
    )


async def _index(_: Request) -> Response:
    agents = [
        {
            "agent": entry.agent,
            "pattern": pattern,
            "path": f"/{entry.agent}{entry.path}",
            "health": f"/{entry.agent}/health",
            "example": entry.example,
        }
        for pattern, entry in CATALOG.items()
    ]
    return JSONResponse({"agents": agents})


async def _problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


class Service:
    """One agent behind HTTP: its action, its health and its standing fault.

    Args:
        entry: The agent.
        answers: The memory of answers, shared by all agents.
        delays: The waits of faults.
    """

    def __init__(self, entry: Entry, answers: Answers, delays: Delays) -> None:
        self.entry = entry
        self._answers = answers
        self._delays = delays
        self._latecomers = Latecomers(delays)
        self._standing: Fault | None = None

    def routes(self) -> list[Route]:
        """Give the routes below the agent's prefix."""
        return [
            Route(self.entry.path, self._act, methods=["POST"]),
            Route("/health", self._health),
            Route(f"/{_FAULT}", self._set_fault, methods=["POST"]),
            Route(f"/{_FAULT}", self._clear_fault, methods=["DELETE"]),
        ]

    async def _act(self, request: Request) -> Response:
        payload = await _read_object(request)
        attempt = Attempt.of(request)
        try:
            wished = Fault.model_validate(payload.pop(_FAULT)) if _FAULT in payload else None
            later = Later.model_validate(payload.pop(_LATER)) if _LATER in payload else None
            fault_response = await self._meet_faults(attempt, self._standing, wished)
            if fault_response is None and later is not None:
                return await self._accept(request, later, payload)
            return fault_response or await self._answer(attempt, payload)
        except ValidationError as error:
            return self._unprocessable(explain(error))
        except Refusal as refusal:
            return JSONResponse({"detail": str(refusal)}, refusal.status)

    async def _accept(self, request: Request, later: Later, payload: Payload) -> Response:
        answer = _render(await self._compute(payload))  # what is wrong with it shows at once
        return self._latecomers.accept(request, later, answer)

    async def _meet_faults(self, attempt: Attempt, *faults: Fault | None) -> Response | None:
        for fault in faults:
            if fault is not None and fault.strikes(attempt):
                await self._delays.wait(fault.delay)
                response = fault.response()
                if response is not None:
                    return response
        return None

    async def _answer(self, attempt: Attempt, payload: Payload) -> Response:
        async def work() -> bytes:
            return _render(await self._compute(payload))

        if attempt.key is None:
            return Response(await work(), media_type="application/json")
        answer, repeated = await self._answers.once((self.entry.agent, attempt.key), work)
        headers = {"Idempotent-Replay": "true"} if repeated else None
        return Response(answer, media_type="application/json", headers=headers)

    async def _compute(self, payload: Payload) -> Answer:
        if self.entry.in_thread:
            return await run_in_threadpool(self.entry.answer, payload)
        return self.entry.answer(payload)

    def _unprocessable(self, detail: str) -> Response:
        return JSONResponse({"detail": detail, "example": self.entry.example}, 422)

    async def _health(self, _: Request) -> Response:
        healthy = self._standing is None or self._standing.health
        status = "healthy" if healthy else "unhealthy"
        answer = {"status": status, "agent": self.entry.agent}
        return JSONResponse(answer, 200 if healthy else 503)

    async def _set_fault(self, request: Request) -> Response:
        try:
            self._standing = Fault.model_validate(await _read_object(request))
        except ValidationError as error:
            return JSONResponse({"detail": explain(error)}, 422)
        return JSONResponse({"agent": self.entry.agent, "fault": self._standing.model_dump()})

    async def _clear_fault(self, _: Request) -> Response:
        self._standing = None
        return Response(status_code=204)


async def _read_object(request: Request) -> dict[str, Any]:
    body = await _read_body(request)
    try:
        # The hooks keep numbers out that JSON answers could not repeat.
        value = json.loads(body, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise HTTPException(422, f"Expected a JSON object, not {type(value).__name__}")
    return value


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body.extend(chunk)
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"The body is over {_MAX_BODY_BYTES} bytes")
    return bytes(body)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value


def _render(answer: Answer) -> bytes:
    return json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
