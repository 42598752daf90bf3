"""The receivers of callbacks: looked up once, checked, and known by the addresses that were."""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from orchestrator.addresses import (
    Address,
    Receiver,
    ReceiverPolicy,
    ReceiverRefused,
    address_of,
    receiver_of,
)
from orchestrator.callback_keys import are_there
from orchestrator.config import Settings
from orchestrator.errors import CallbackRefused

LOOKUP_SECONDS = 1.0
"""At submission; a name that is not found by then is looked up again when it is called."""
KEPT_SECONDS = 10.0
_KEPT_HOSTS = 1000
_AT_ONCE = 16
_MOST_HOSTS = 200
"""So many hosts of one batch are looked up when it is handed in; the rest when they are called."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text; raises OSError where there are none."""

NO_KEY = (
    "callbacks are not set up: they are signed, and no callbacks.secret is configured "
    "(docs/callbacks.md)"
)


async def by_system(host: str, port: int) -> Sequence[str]:
    """As the operating system resolves names."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Receivers:
    """Says of a URL whether it may be called, and at which addresses."""

    def __init__(self, policy: ReceiverPolicy, resolve: Resolve = by_system) -> None:
        self._policy = policy
        self._resolve = resolve

    @classmethod
    def of(cls, settings: Settings) -> "Receivers":
        """Those that the configuration allows."""
        section = settings.callbacks
        return cls(ReceiverPolicy(section.allow, section.ports))

    def read(self, url: str) -> Receiver:
        """The receiver, as far as its URL tells.

        Raises:
            ReceiverRefused: it may not be called.
        """
        receiver = receiver_of(url)
        self._policy.check(receiver)
        return receiver

    async def addresses(self, receiver: Receiver) -> list[Address]:
        """Where it is now; looked up once, and every address checked.

        Raises:
            ReceiverRefused: it may not be called.
            OSError: the name is not known.
        """
        if receiver.address is not None:
            found = [receiver.address]
        else:
            found = [address_of(each) for each in await self._resolve(receiver.host, receiver.port)]
        if not found:
            raise OSError("the name has no address")
        self._policy.check_addresses(receiver, found)
        return found


class SubmissionGuard:
    """Refuses tasks whose callback could not be delivered by what is known when they come.

    Args:
        receivers: by which they will be called.
        signs: callbacks can be signed.
    """

    def __init__(
        self,
        receivers: Receivers,
        *,
        signs: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receivers = receivers
        self._signs = signs
        self._clock = clock
        self._known: OrderedDict[tuple[str, int], tuple[float, str | None]] = OrderedDict()

    @classmethod
    def of(cls, settings: Settings) -> "SubmissionGuard":
        """By the configuration."""
        return cls(Receivers.of(settings), signs=are_there(settings))

    def read(self, url: str) -> Receiver:
        """The receiver, unless the URL alone shows that it may not be called.

        Raises:
            ReceiverRefused: it may not.
        """
        if not self._signs:
            raise ReceiverRefused(NO_KEY)
        return self._receivers.read(url)

    async def check(self, url: str) -> None:
        """The same, with the addresses behind it, if they are found soon.

        Raises:
            CallbackRefused: it may not be called.
        """
        try:
            receiver = self.read(url)
        except ReceiverRefused as error:
            raise CallbackRefused(str(error)) from None
        if refusal := await self._refusal(receiver):
            raise CallbackRefused(refusal)

    async def check_all(self, receivers: Iterable[tuple[int, Receiver]]) -> None:
        """The same of a batch's items, whose URLs were read before.

        Raises:
            CallbackRefused: names the first item that is wrong.
        """
        if refused := await self.refusals(receivers):
            first = min(refused)
            raise CallbackRefused(refused[first], first)

    async def refusals(self, receivers: Iterable[tuple[int, Receiver]]) -> dict[int, str]:
        """Why items may not have their receivers, by the items' numbers; each host once."""
        hosts: dict[tuple[str, int], list[tuple[int, Receiver]]] = {}
        for index, receiver in receivers:
            hosts.setdefault((receiver.host, receiver.port), []).append((index, receiver))
        turn = asyncio.Semaphore(_AT_ONCE)

        async def refusal(items: list[tuple[int, Receiver]]) -> dict[int, str]:
            async with turn:
                text = await self._refusal(items[0][1])
            return {index: text for index, _ in items} if text is not None else {}

        some = list(hosts.values())[:_MOST_HOSTS]
        found = await asyncio.gather(*map(refusal, some))
        return {index: text for each in found for index, text in each.items()}

    async def _refusal(self, receiver: Receiver) -> str | None:
        key, now = (receiver.host, receiver.port), self._clock()
        known = self._known.get(key)
        if known is None or known[0] < now:
            known = self._known[key] = (now + KEPT_SECONDS, await self._looked_up(receiver))
            self._known.move_to_end(key)
            if len(self._known) > _KEPT_HOSTS:
                self._known.popitem(last=False)
        return known[1]

    async def _looked_up(self, receiver: Receiver) -> str | None:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                await self._receivers.addresses(receiver)
        except ReceiverRefused as error:
            return str(error)
        except (OSError, UnicodeError):
            return None
        return None
