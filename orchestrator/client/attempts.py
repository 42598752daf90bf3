"""When a request is sent again, and how an end is waited for; knows no connection and no clock.

What has to be done comes out of generators, one step at a time: a call to be sent, or seconds to
pause. What came of it goes in. So the two clients differ only in how they do a step.
"""

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar

import httpx

from orchestrator.client.calls import Call, failure
from orchestrator.client.errors import (
    ApiUnreachable,
    ClientError,
    RateLimited,
    StillOpen,
    Unavailable,
    UnexpectedAnswer,
)

Answer = TypeVar("Answer")

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 10.0
LOOK_SECONDS = 30.0
"""How long one request waits for an end; the API answers after a minute at most."""
EARLY_PAUSE_SECONDS = 0.5
"""An API that stops answers at once, with what there is."""

_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Pause:
    """A step: wait so many seconds."""

    seconds: float


Result = httpx.Response | httpx.RequestError | None
"""What comes of a step: of a call its response or what broke, of a pause nothing."""
Steps = Generator[Call[Any] | Pause, Result, Answer]


@dataclass(frozen=True)
class Terms:
    """How patient a client is.

    Args:
        timeout: seconds that one answer may take, beside what the API was asked to wait.
        retry_for: seconds for which what failed is sent again; 0 sends once.
        clock: seconds of a clock that never goes back.
    """

    timeout: float
    retry_for: float
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Wait(Call[Answer]):
    """A call that is repeated, the API waiting each time, until what it looks at has ended.

    Args:
        is_over: whether an answer is final.
        patience: seconds; None waits for as long as it takes.
    """

    is_over: Callable[[Answer], bool] = bool
    patience: float | None = None


def steps(call: Call[Answer], terms: Terms) -> Steps[Answer]:
    """Have the call answered: sent again while that may help, or until there is an end.

    Raises:
        ClientError: it cannot be.
    """
    return _until_over(call, terms) if isinstance(call, Wait) else _sent(call, terms)


def _sent(call: Call[Answer], terms: Terms) -> Steps[Answer]:
    until = terms.clock() + terms.retry_for
    for attempt in count():
        result = yield call
        error = _error(call, result)
        if error is None:
            assert isinstance(result, httpx.Response)  # noqa: S101 - it has no error
            return call.read(result)
        seconds = pause_after(error, attempt)
        if not _may_repeat(call, result, error) or terms.clock() + seconds > until:
            raise error
        yield Pause(seconds)
    raise AssertionError  # pragma: no cover - the count has no end


def _error(call: Call[Any], result: Result) -> ClientError | None:
    if isinstance(result, httpx.Response):
        return failure(call, result)
    assert result is not None  # noqa: S101 - a call has a result
    return broken(result)


def broken(error: httpx.RequestError) -> ClientError:
    """What a connection's error means to whoever uses the client."""
    request = error.request
    where = request.url.copy_with(path="/", query=None, fragment=None)
    why = str(error) or type(error).__name__
    if not isinstance(error, httpx.TransportError):
        return UnexpectedAnswer(f"What answers at {where} does not speak this API: {why}")
    return ApiUnreachable(f"The orchestrator's API at {where} does not answer: {why}")


def pause_after(error: ClientError, attempt: int) -> float:
    """As long as the API says, if that is any time; else twice as long each time, jittered."""
    told: float | None = getattr(error, "retry_after", None)
    if told is not None and told >= FIRST_PAUSE_SECONDS:
        return told
    usual = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 30), LONGEST_PAUSE_SECONDS)
    return usual * random.uniform(0.5, 1.0)  # noqa: S311 - so that clients do not come all at once


def _may_repeat(call: Call[Any], result: Result, error: ClientError) -> bool:
    if isinstance(error, RateLimited) or isinstance(result, _NOTHING_SENT):
        return True
    return call.repeatable and isinstance(error, Unavailable | ApiUnreachable)


def _until_over(wait: Wait[Answer], terms: Terms) -> Steps[Answer]:
    began = terms.clock()
    while True:
        left = None if wait.patience is None else wait.patience - (terms.clock() - began)
        asked = LOOK_SECONDS if left is None else max(0.0, min(left, LOOK_SECONDS))
        looked = terms.clock()
        found = yield from _sent(_look(wait, asked), _within(terms, left))
        if wait.is_over(found):
            return found
        now = terms.clock()
        if wait.patience is not None and now - began >= wait.patience:
            raise StillOpen(found, wait.patience)
        if now - looked < min(asked, EARLY_PAUSE_SECONDS):
            yield Pause(EARLY_PAUSE_SECONDS)


def _look(wait: Wait[Answer], seconds: float) -> Call[Answer]:
    header = {"Prefer": f"wait={int(-(-seconds // 1))}"}
    return replace(wait, headers={**wait.headers, **header}, wait=seconds)


def _within(terms: Terms, left: float | None) -> Terms:
    """The same, but no more patient than there is time."""
    if left is None:
        return terms
    return replace(terms, retry_for=min(terms.retry_for, max(0.0, left)))
