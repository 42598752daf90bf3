"""Agents over HTTP: POST the payload as JSON through one pooled session per process."""

import asyncio
import io
from collections.abc import Collection
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from pydantic_core import to_json

from orchestrator.call_errors import (
    AgentDisconnected,
    AgentFailed,
    AgentRejected,
    AgentTimedOut,
    AgentUnreachable,
    CallError,
    ReplyTooLarge,
    ReplyUnreadable,
)
from orchestrator.config import Settings
from orchestrator.json_text import decode
from orchestrator.transports import AgentRequest, AgentResponse
from orchestrator.transports.outcomes import (
    EXCERPT_CHARACTERS,
    excerpt_of,
    is_success,
    kind_of_failure,
    one_line,
    reason_of,
    retry_after_seconds,
)

USER_AGENT = "orchestration-agent"
# Below the 5 s after which uvicorn and Node close idle connections, so that we close first.
KEEPALIVE_SECONDS = 4.0
CONNECT_SECONDS = 10.0
_HEADER_BYTES = 32 * 1024
_EXCERPT_BYTES = 4 * EXCERPT_CHARACTERS
_EXCERPT_SECONDS = 1.0
_LARGE_BODY_BYTES = 1024 * 1024


class HttpTransport:
    """One aiohttp session; call ``close`` when done.

    Redirects are not followed, proxies of the environment not used, cookies not kept.
    """

    def __init__(self, max_result_bytes: int) -> None:
        self.max_result_bytes = max_result_bytes
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: AgentRequest) -> AgentResponse:
        """POST the payload; the whole exchange is bounded by the request's timeout."""
        try:
            async with asyncio.timeout(request.timeout):
                return await self._exchange(request)
        except TimeoutError:
            raise AgentTimedOut(
                f"{_who(request)} did not answer within {round(request.timeout, 3):g} s"
            ) from None

    async def _exchange(self, request: AgentRequest) -> AgentResponse:
        who = _who(request)
        try:
            async with self._open_session().request(
                "GET" if request.payload is None else "POST",
                request.url,
                data=_body(request),
                headers=request.headers,
                allow_redirects=False,
            ) as response:
                return await self._answer(who, response)
        except aiohttp.ConnectionTimeoutError:
            reason = f"no connection within {CONNECT_SECONDS:g} s"
            raise AgentUnreachable(f"{who} is unreachable: {reason}") from None
        except aiohttp.ClientConnectorError as error:
            raise AgentUnreachable(f"{who} is unreachable: {reason_of(error)}") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise AgentRejected(f"{who} cannot be called: the URL is not valid") from None
        except ValueError as error:
            # A host name, a header or a payload that cannot be written.
            raise AgentRejected(f"{who} cannot be called: {reason_of(error)}") from None
        except aiohttp.ClientResponseError as error:
            raise AgentFailed(
                f"{who} answered with something that is not HTTP: {one_line(error.message)}"
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            if isinstance(error.__cause__, ContentEncodingError):
                raise ReplyUnreadable(
                    f"{who} answered with a content encoding that is broken: {reason_of(error)}"
                ) from None
            raise AgentDisconnected(
                f"{who} broke the connection before its answer was complete: {reason_of(error)}"
            ) from None

    async def _answer(self, who: str, response: aiohttp.ClientResponse) -> AgentResponse:
        if response.status == HTTPStatus.ACCEPTED:
            return AgentResponse(
                response.status,
                await self._json(who, response),
                location=response.headers.get("Location"),
                retry_after=_retry_after(response),
            )
        if is_success(response.status):
            return AgentResponse(response.status, await self._json(who, response))
        raise await _refusal(who, response)

    async def _json(self, who: str, response: aiohttp.ClientResponse) -> object:
        body = await self._whole(who, response)
        if not body:
            return None
        try:
            return decode(body)
        except ValueError as error:
            raise ReplyUnreadable(
                f"{who} answered {response.status} with {one_line(response.content_type)} that is "
                f"not JSON: {error}",
                status=response.status,
                excerpt=excerpt_of(bytes(body)),
            ) from None

    async def _whole(self, who: str, response: aiohttp.ClientResponse) -> bytes | bytearray:
        """The body, counted as decompressed: a small answer may unfold into a large one."""
        content = response.content
        if content.is_eof() and content.total_bytes <= self.max_result_bytes:
            # It came with its headers, as small ones do.
            return content.read_nowait()
        body = bytearray()
        async for chunk in content.iter_any():
            body += chunk
            if len(body) > self.max_result_bytes:
                raise ReplyTooLarge(
                    f"{who} answered with more than {self.max_result_bytes:,} bytes "
                    "(limits.max_result_bytes)",
                    status=response.status,
                )
        return body

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How many calls run at once is bounded by the workers' slots, not here.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                headers={
                    "User-Agent": USER_AGENT,
                    "Accept": "application/json",
                    "Content-Type": "application/json",
                },
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            )
        return self._session

    async def probe(self, url: str, timeout: float, expected: Collection[int] = ()) -> str | None:
        """GET a health check; None if it is answered well within the timeout, else what is wrong.

        Well is any of the ``expected`` statuses, or any 2xx where none is named.
        """
        try:
            async with (
                asyncio.timeout(timeout),
                self._open_session().get(url, allow_redirects=False) as response,
            ):
                status = response.status
                well = status in expected if expected else is_success(status)
                return None if well else f"answered {status}"
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return reason_of(error)

    def configure(self, settings: Settings) -> None:
        """Go by another configuration."""
        self.max_result_bytes = settings.limits.max_result_bytes

    async def close(self) -> None:
        """Close the pooled connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _refusal(who: str, response: aiohttp.ClientResponse) -> CallError:
    """The error that an answer outside 2xx stands for."""
    status = response.status
    excerpt = await _beginning(response)
    message = f"{who} answered {status}"
    if response.reason:
        message += f" {one_line(response.reason)}"
    return kind_of_failure(status)(
        message,
        status=status,
        excerpt=excerpt,
        retry_after=_retry_after(response),
    )


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    return retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))


async def _beginning(response: aiohttp.ClientResponse) -> str | None:
    """What a refusal says, if it says it soon; its status counts even if its body never comes."""
    try:
        async with asyncio.timeout(_EXCERPT_SECONDS):
            return excerpt_of(await response.content.read(_EXCERPT_BYTES))
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        return None


def _body(request: AgentRequest) -> aiohttp.BytesPayload | io.BytesIO | None:
    if request.payload is None:
        return None
    # aiohttp writes large bodies piece by piece only if they come as files, and looks for how to
    # write any other by its type, unless it is told.
    body = to_json(request.payload)
    return aiohttp.BytesPayload(body) if len(body) <= _LARGE_BODY_BYTES else io.BytesIO(body)


def _who(request: AgentRequest) -> str:
    return f"{request.agent} at {request.url}"
