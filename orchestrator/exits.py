"""What a command's exit code says, the same for all commands that speak to the API."""

from enum import IntEnum

from orchestrator.client.errors import (
    ApiError,
    ApiUnreachable,
    ClientError,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    RateLimited,
    StillOpen,
    Unavailable,
    UnexpectedAnswer,
)


class Exit(IntEnum):
    """The codes; those above 100 are the shell's own for the same."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    NOT_ALLOWED = 6
    STILL_OPEN = 124
    INTERRUPTED = 130
    READER_GONE = 141


_CODES: tuple[tuple[type[ClientError], Exit], ...] = (
    (InvalidRequest, Exit.USAGE),
    (NotFound, Exit.NOT_FOUND),
    (NotAllowed, Exit.NOT_ALLOWED),
    (Conflict, Exit.REFUSED),
    (RateLimited, Exit.REFUSED),
    (Unavailable, Exit.REFUSED),
    (StillOpen, Exit.STILL_OPEN),
    (ApiUnreachable, Exit.UNREACHABLE),
    (UnexpectedAnswer, Exit.UNREACHABLE),
    (ApiError, Exit.UNREACHABLE),
)

EXPLAINED = """\b
Exit codes:
  0    done, and the task has not failed
  1    the task (or one of the tasks) failed or was cancelled; doctor found a failure;
       the output cannot be written
  2    a wrong option, payload, configuration or request
  3    there is no such task, batch, aggregate or agent
  4    refused for now, or in conflict: 409, 429, 502, 503, 504
  5    the API does not answer, or not as it should
  6    the API key is missing, or does not allow it
  124  the time to --wait is over; the task goes on
  130  interrupted; the task goes on
  141  the reader of the output has gone"""


def code_of(error: ClientError) -> Exit:
    """The code by which an error of the client ends a command."""
    found = (code for kind, code in _CODES if isinstance(error, kind))
    return next(found, Exit.FAILED)


def code_of_status(status: int) -> Exit:
    """The code for what the API would answer, as a dry run tells."""
    if status < 400:  # noqa: PLR2004 - where HTTP's errors begin
        return Exit.OK
    return Exit.REFUSED if status in {409, 429, 502, 503, 504} else Exit.USAGE
