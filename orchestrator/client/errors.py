"""Every error of the client, in one tree.

ClientError
├── ApiUnreachable        no connection, or it broke, for as long as it was tried
├── UnexpectedAnswer      what answers does not speak this API: a wrong URL, or a proxy before it
├── StillOpen             the time to wait is over; what was waited for goes on
└── ApiError              the API answered with a problem document (RFC 9457)
    ├── InvalidRequest    400, 413, 415, 422: it would be refused again
    ├── NotAllowed        401, 403: the key is missing, or does not allow it
    ├── NotFound          404
    ├── Conflict          409: it contradicts what is
    ├── RateLimited       429
    └── Unavailable       502, 503, 504: the agent, the queue or the engine takes nothing now
"""

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """The root: its text is meant for people."""


class ApiUnreachable(ClientError):
    """No answer came; what was sent with an idempotency key may be sent again."""


class UnexpectedAnswer(ClientError):
    """An answer that this API does not give.

    Args:
        message: what came, and from where.
        status: its HTTP status.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class StillOpen(ClientError):
    """What was waited for has not ended in time; ``last`` is its status then."""

    def __init__(self, last: Any, seconds: float) -> None:
        super().__init__(f"Not ended after {seconds:g} s; it goes on")
        self.last = last


class ApiError(ClientError):
    """The API refused a request.

    Args:
        status: the HTTP status.
        detail: why, for people.
        retry_after: seconds after which it may be sent again, where the API tells.
        problem: the whole document; its ``errors`` name fields or items.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        retry_after: float | None = None,
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.problem = dict(problem or {})


class InvalidRequest(ApiError):
    """The request is wrong."""


class NotAllowed(ApiError):
    """The API key is missing or wrong, or does not allow it."""


class NotFound(ApiError):
    """There is no such task, batch, agent, ..."""


class Conflict(ApiError):
    """It contradicts what is."""


class RateLimited(ApiError):
    """Too many requests."""


class Unavailable(ApiError):
    """Not now: the agent's breakers are open, the queue is full, the engine does not answer."""


KINDS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
