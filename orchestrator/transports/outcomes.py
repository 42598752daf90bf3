"""What an agent's answer means, over whichever transport it came: statuses are those of HTTP."""

import email.utils
import re
from datetime import UTC, datetime

from orchestrator.call_errors import AgentFailed, AgentOverloaded, AgentRejected, CallError

EXCERPT_CHARACTERS = 300
_RETRYABLE_STATUSES = {408, 425}
_TOO_MANY_REQUESTS = 429
# Also what a terminal or a browser takes for control (C1, line separators, direction overrides),
# and the halves of characters that stand for bytes outside UTF-8 in headers.
_CONTROL_CHARACTERS = re.compile(
    r"[\x00-\x20\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
)


def is_success(status: int) -> bool:
    """Whether the agent did, or took, its work."""
    return 200 <= status < 300  # noqa: PLR2004 - the 2xx class


def kind_of_failure(status: int) -> type[CallError]:
    """The error that a status outside 2xx stands for."""
    if status == _TOO_MANY_REQUESTS:
        return AgentOverloaded
    if status in _RETRYABLE_STATUSES or status >= 500:  # noqa: PLR2004 - the 5xx class
        return AgentFailed
    return AgentRejected


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header: a number, or a date (RFC 9110, 10.2.3).

    None when there is none, or it cannot be read.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def reason_of(error: BaseException) -> str:
    """An error of a library, on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(str(text))


def one_line(text: str) -> str:
    """The beginning of a text, without what could break a line or a terminal."""
    return _CONTROL_CHARACTERS.sub(" ", text).strip()[:EXCERPT_CHARACTERS]


def excerpt_of(body: bytes) -> str | None:
    """The beginning of what an agent said."""
    return one_line(body.decode("utf-8", errors="replace")) or None
