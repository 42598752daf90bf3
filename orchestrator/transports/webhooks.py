"""Callbacks over HTTP: one POST to an address that was checked, and to no other."""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address
from ssl import SSLContext

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from orchestrator.addresses import Address, ReceiverRefused
from orchestrator.receivers import Receivers
from orchestrator.transports.http import CONNECT_SECONDS, USER_AGENT
from orchestrator.transports.outcomes import retry_after_seconds

_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True)
class WebhookAnswer:
    """What the receiver said: a status, and when to come again, if it said that."""

    status: int
    retry_after: float | None = None


class DeliveryFailed(Exception):
    """No answer came; the text says why."""


class _Pinned(AbstractResolver):
    """Knows the addresses that were checked, whatever it is asked."""

    def __init__(self, addresses: list[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - of the interface
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(each),
                port=port,
                family=socket.AF_INET6 if isinstance(each, IPv6Address) else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for each in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


class Webhooks:
    """Sends callbacks, each bounded by ``timeout`` seconds with everything that belongs to it.

    Redirects are not followed, proxies of the environment not used, cookies not kept, connections
    not reused, and of an answer only status and headers are read.
    """

    def __init__(self, receivers: Receivers, timeout: float, tls: SSLContext | None = None) -> None:
        self._receivers = receivers
        self._timeout = timeout
        self._tls = tls

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """POST the body.

        Raises:
            ReceiverRefused: the receiver may not be called, by what its name stands for now.
            DeliveryFailed: no answer.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(url, body, headers)
        except TimeoutError:
            raise DeliveryFailed(f"no answer within {self._timeout:g} s") from None
        except ReceiverRefused:
            raise
        except aiohttp.ClientResponseError:
            raise DeliveryFailed("the answer is not HTTP") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DeliveryFailed(_reason(error)) from None

    async def _exchange(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        receiver = self._receivers.read(url)
        addresses = await self._receivers.addresses(receiver)
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses),
            use_dns_cache=False,
            force_close=True,
            ssl=self._tls or True,
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            ) as session,
            session.post(
                receiver.url,
                data=body,
                headers={
                    "User-Agent": USER_AGENT,
                    "Content-Type": "application/json",
                    **headers,
                },
                allow_redirects=False,
            ) as response,
        ):
            told = response.headers.get("Retry-After")
            answer = WebhookAnswer(response.status, retry_after_seconds(told, datetime.now(UTC)))
            # The body is nobody's, however long it is: the connection goes with it.
            response.close()
            return answer


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]
