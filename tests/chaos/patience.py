"""A client as it should be: it repeats with the same key until it is answered."""

import asyncio
import itertools
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httpx

from tests.chaos.ledger import Ledger

PATIENCE_SECONDS = 300.0
REQUEST_SECONDS = 40.0
PAUSE_SECONDS = 0.3
MAX_PAUSE_SECONDS = 3.0
AGAIN = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}


class Stuck(Exception):
    """Something did not come about in a time that is long for any machine."""


class Patient:
    """Asks both APIs in turn, as a load balancer would let it."""

    def __init__(self, urls: tuple[str, str], ledger: Ledger) -> None:
        self._ledger = ledger
        self._urls = itertools.cycle(urls)
        self._client = httpx.AsyncClient(timeout=REQUEST_SECONDS)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        sent: Callable[[], None] = lambda: None,
        **headers: str,
    ) -> httpx.Response:
        """The first answer that is neither 503 nor 429 nor silence; ``sent`` is told each request.

        Raises:
            Stuck: there was none for five minutes.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        last = "no answer"
        while time.monotonic() < end:
            sent()
            try:
                answer = await self.once(method, path, body, **headers)
            except httpx.TransportError as error:
                last = type(error).__name__
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if answer.status_code not in AGAIN:
                return answer
            last = answer.text[:200]
            wait = float(answer.headers.get("Retry-After", PAUSE_SECONDS))
            await asyncio.sleep(min(MAX_PAUSE_SECONDS, max(PAUSE_SECONDS, wait)))
        raise Stuck(f"{method} {path} was not answered for {PATIENCE_SECONDS:g} s: {last}")

    async def once(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """One request, noted.

        Raises:
            httpx.TransportError: it was not answered.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        began = time.monotonic()
        try:
            answer = await self._client.request(
                method, next(self._urls) + path, json=body, headers=named
            )
        except httpx.TransportError:
            self._ledger.answers["none"] += 1
            raise
        finally:
            took = time.monotonic() - began
            self._ledger.slowest_answer = max(self._ledger.slowest_answer, took)
        self._ledger.answers[str(answer.status_code)] += 1
        if (
            answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
            and answer.status_code not in AGAIN
        ):
            what = f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}"
            self._ledger.violate("I8", what)
        return answer
