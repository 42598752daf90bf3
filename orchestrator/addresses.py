"""Which receivers of callbacks may be called: their URLs, and the addresses behind them. Pure.

Refused is whatever a caller from outside could not reach by itself: hosts of this machine, of its
networks, and of the cloud that it runs in. What a URL says is read once, here; what is requested
later is built of that.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit, urlunsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT = 1024
"""Below it are the well-known services that speak something else than HTTP."""
MAX_PORT = 65535

_ODD = re.compile(r"[\x00-\x20\x7f\\]")
_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_PORT_AFTER_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>[0-9]{1,5})")

_IPV4_KINDS = {
    "0.0.0.0/8": "unspecified",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "carrier-grade NAT",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "cloud metadata",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
"""The special-purpose registry of IANA (RFC 6890), and the one public address of a cloud's host."""
_IPV6_KINDS = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "2001::/32": "Teredo",
    "2001::/23": "reserved",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
}
_KINDS: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(text), kind) for text, kind in (_IPV4_KINDS | _IPV6_KINDS).items()
)
_MAPPED = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""Prefixes of IPv6 that stand for an IPv4 address: mapped (RFC 4291) and NAT64 (RFC 6052)."""
_GLOBAL = IPv6Network("2000::/3")
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}
_LOW_32 = 0xFFFF_FFFF


class ReceiverRefused(ValueError):
    """A receiver that is not called; the text says why, and what can be done."""


@dataclass(frozen=True)
class Receiver:
    """Where a callback goes.

    Args:
        url: what is requested.
        host: in lower case, without a trailing dot; an address in its usual form.
        port: also where the URL names none.
        address: the host, where that is an address.
    """

    url: str
    host: str
    port: int
    address: Address | None


def receiver_of(url: str) -> Receiver:
    """What a URL says.

    Raises:
        ReceiverRefused: it is none of a receiver, or is written to be misread.
    """
    if _ODD.search(url):
        raise ReceiverRefused("is not a URL: it has spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ReceiverRefused(f"is not a URL: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise ReceiverRefused("must be an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ReceiverRefused("must not have a user or a password; callbacks are signed instead")
    host = _host(parts.hostname or "", bracketed="[" in parts.netloc)
    number = DEFAULT_PORTS[scheme] if port is None else port
    shown = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    netloc = shown if port is None else f"{shown}:{number}"
    return Receiver(
        url=urlunsplit((scheme, netloc, parts.path or "/", parts.query, "")),
        host=str(host),
        port=number,
        address=None if isinstance(host, str) else host,
    )


def _host(text: str, *, bracketed: bool) -> str | Address:
    """A host as it will be looked up: whatever its notation, an address is known as one."""
    if "%" in text:
        raise ReceiverRefused("must name its host plainly: without '%' and zones")
    if bracketed:
        return _ipv6(text)
    try:
        # Full-width digits and dots become plain ones here, so what is a number shows after it.
        name = text.encode("idna").decode().lower() if not text.isascii() else text.lower()
    except UnicodeError:
        raise ReceiverRefused("must name a host that exists in DNS") from None
    name = name.removesuffix(".")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return _ipv4(name)
    if not _NAME.fullmatch(name):
        raise ReceiverRefused("must name a host")
    return name


def _ipv6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError:
        raise ReceiverRefused("must have an IPv6 address in its brackets") from None


def _ipv4(text: str) -> IPv4Address:
    """An IPv4 address in any notation that some resolver takes: short, octal, hexadecimal."""
    parts = text.split(".")
    if len(parts) > 4 or not all(map(_NUMBER.fullmatch, parts)):  # noqa: PLR2004 - four bytes
        raise ReceiverRefused("must name a host, or an address that is one")
    try:
        *bytes_, last = map(_number, parts)
    except ValueError:
        raise ReceiverRefused("must name a host, or an address that is one") from None
    rest_bits = 8 * (4 - len(bytes_))
    if any(each > 255 for each in bytes_) or last >> rest_bits:  # noqa: PLR2004 - a byte
        raise ReceiverRefused("must name a host, or an address that is one")
    number = last
    for place, each in enumerate(bytes_):
        number |= each << (24 - 8 * place)
    return IPv4Address(number)


def _number(text: str) -> int:
    if text[:2] in {"0x", "0X"}:
        return int(text[2:] or "0", 16)
    return int(text, 8 if len(text) > 1 and text[0] == "0" else 10)


def kind_of(address: Address) -> str | None:
    """Why an address is not public, in a word or two; None if it is."""
    if isinstance(address, IPv6Address):
        if any(address in network for network in _MAPPED):
            return kind_of(IPv4Address(int(address) & _LOW_32))
        if (int(address) >> 32) & _LOW_32 in _ISATAP:
            return "ISATAP"
    for network, kind in _KINDS:
        if address in network:
            return kind
    if isinstance(address, IPv6Address) and address not in _GLOBAL:
        return "reserved"
    return None if address.is_global else "reserved"


@dataclass(frozen=True)
class Allowed:
    """An entry of the allow list: a network, or a host with the one port that is meant, if any."""

    network: Network | None = None
    host: str = ""
    port: int | None = None

    @classmethod
    def of(cls, text: str) -> "Allowed":
        """Read one entry: ``10.0.0.0/8``, ``hooks.internal``, ``hooks.internal:8080``.

        Raises:
            ValueError: it is none.
        """
        try:
            return cls(network=ip_network(text, strict=False))
        except ValueError:
            found = _PORT_AFTER_HOST.fullmatch(text)
        host, port = (found["host"], int(found["port"])) if found else (text, None)
        bare = host.removeprefix("[").removesuffix("]")
        if "/" in host or (port is not None and not 0 < port <= MAX_PORT):
            raise ValueError("a host, host:port, an address or a network such as 10.0.0.0/8")
        try:
            return cls(host=str(_host(bare, bracketed=host != bare)), port=port)
        except ReceiverRefused:
            raise ValueError(
                "a host, host:port, an address or a network such as 10.0.0.0/8"
            ) from None


class ReceiverPolicy:
    """Decides who may be called.

    Args:
        allow: private receivers that may be, as ``Allowed.of`` reads them.
        ports: that public receivers may have; without any 80, 443 and those from 1024 on.
    """

    def __init__(self, allow: Iterable[str] = (), ports: Collection[int] = ()) -> None:
        self._allowed = tuple(map(Allowed.of, allow))
        self._ports = frozenset(ports)

    def check(self, receiver: Receiver) -> None:
        """Refuse by what the URL alone tells.

        Raises:
            ReceiverRefused: it may not be called.
        """
        if self.is_named(receiver):
            return
        if not self._takes_port(receiver.port):
            ports = ", ".join(map(str, sorted(self._ports))) or "80, 443, and 1024 to 65535"
            raise ReceiverRefused(
                f"has port {receiver.port}, which is not called; allowed: {ports} "
                "(callbacks.ports, callbacks.allow)"
            )
        if receiver.host == "localhost" or receiver.host.endswith(".localhost"):
            raise _not_public(receiver.host, "loopback")
        if receiver.address is not None:
            self.check_addresses(receiver, [receiver.address])

    def check_addresses(self, receiver: Receiver, addresses: Iterable[Address]) -> None:
        """Refuse by the addresses that the host stands for now: all must be good.

        Raises:
            ReceiverRefused: it may not be called.
        """
        if self.is_named(receiver):
            return
        for address in addresses:
            kind = kind_of(address)
            if kind is not None and not self._is_in_network(address):
                raise _not_public(receiver.host, kind, address)

    def is_named(self, receiver: Receiver) -> bool:
        """Whether the allow list names this very host, whatever its addresses are."""
        return any(
            each.host == receiver.host and each.port in {None, receiver.port}
            for each in self._allowed
            if each.network is None
        )

    def _is_in_network(self, address: Address) -> bool:
        networks = [each.network for each in self._allowed if each.network is not None]
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(each in network for network in networks for each in (address, mapped))

    def _takes_port(self, port: int) -> bool:
        if self._ports:
            return port in self._ports
        return port in DEFAULT_PORTS.values() or FIRST_FREE_PORT <= port <= MAX_PORT


def _not_public(host: str, kind: str, address: Address | None = None) -> ReceiverRefused:
    where = f"'{host}'" if address is None or str(address) == host else f"'{host}' ({address})"
    return ReceiverRefused(
        f"leads to {where}, which is not public ({kind}); an operator may allow it by "
        "callbacks.allow"
    )


def address_of(text: str) -> Address:
    """An address as a resolver gives it; a zone that it names says nothing here."""
    return ip_address(text.partition("%")[0])
