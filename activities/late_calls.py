"""What a call says of a late answer, and what a 202 to it means."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin, urlsplit

from orchestrator.call_errors import ReplyUnreadable
from orchestrator.completions import HEADER, CompletionUrls, Ticket, new_answer_id
from orchestrator.models import Completion, LateRule
from orchestrator.transports import AgentRequest, AgentResponse


def answer_id_of(
    agent: str, attempt: int, late: LateRule | None, completions: CompletionUrls | None
) -> str | None:
    """What the answer will be called if it comes later; None where it must come at once."""
    completion = late.completion if late else Completion.CALLBACK
    if completion is Completion.NONE or (completion is Completion.CALLBACK and not completions):
        return None
    return new_answer_id(agent, attempt)


def answer_by(deadline: datetime, timeout: float, late: LateRule | None) -> datetime:
    """Until when an answer to a call of now is of use, be it a late one."""
    if late is None or late.answer_timeout is None:
        return deadline
    return min(deadline, datetime.now(UTC) + timedelta(seconds=timeout + late.answer_timeout))


def completion_header(
    completions: CompletionUrls | None,
    task_id: str,
    answer_id: str | None,
    late: LateRule | None,
    expires: datetime,
) -> dict[str, str]:
    """The header that says where a late answer is to be posted, where one may be."""
    polled = late is not None and late.completion is Completion.POLL
    if completions is None or answer_id is None or polled:
        return {}
    return {HEADER: completions.url(Ticket(task_id, answer_id, expires))}


def located(response: AgentResponse, request: AgentRequest, late: LateRule | None) -> AgentResponse:
    """The 202 with the whole address of its answer, if it is to be polled, or else with none.

    Raises:
        ReplyUnreadable: it is to be polled, and the agent does not say where.
    """
    if late is None or late.completion is not Completion.POLL:
        return replace(response, location=None)
    found = location_of(response.location, request.url)
    if found is None:
        raise ReplyUnreadable(
            f"{request.agent} at {request.url} answered 202 without a Location on the same server",
            status=response.status,
        )
    return replace(response, location=found)


def location_of(location: str | None, url: str) -> str | None:
    """Where an agent that was called at the URL has its answer polled.

    None where it names no place, or one on another server: that would be sent its credentials.
    """
    if not location:
        return None
    found = urljoin(url, location)
    asked, named = urlsplit(url), urlsplit(found)
    return found if (asked.scheme, asked.netloc) == (named.scheme, named.netloc) else None
