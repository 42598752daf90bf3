"""Addresses of agents: what a URL of each scheme names, and what may be wrong with it.

http(s)    an instance is scheme, host and port; the endpoint of a rule is a path on it
amqp(s)    an instance is a queue: amqp://host[:port][/vhost]/queue; the endpoint of a rule goes
           along with each message

Another scheme is another Form in FORMS, and a transport in orchestrator/transports/by_scheme.py.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, unquote, urlsplit

AMQP_PORTS = {"amqp": 5672, "amqps": 5671}
_ENCODED = "; within names and passwords write / as %2F, @ as %40, # as %23, ? as %3F"
_BY_HEADERS = "send credentials by the agent's headers"
MAX_NAME_BYTES = 255
"""Of a queue, a vhost, and a path that goes along with a message (AMQP 0-9-1's short strings)."""


@dataclass(frozen=True)
class Form:
    """What the addresses of a scheme look like.

    Args:
        check: raises ValueError, saying what is allowed.
        instance: the instance that an address names.
        joined: the address of a path on an instance.
        path: the path on its instance that an address names.
        takes_login: whether configured addresses may hold user and password.
    """

    check: Callable[[SplitResult], None]
    instance: Callable[[str], str]
    joined: Callable[[str, str], str]
    path: Callable[[str], str]
    takes_login: bool = False


def checked(url: str, *, login: bool = False) -> str:
    """The URL as it came, if it is one of those that agents can have.

    Args:
        url: the address.
        login: whether user and password may be in it, where its scheme takes them there.

    Raises:
        ValueError: saying what is allowed.
    """
    parts = _split(url)
    form = FORMS.get(parts.scheme)
    if form is None or not parts.hostname:
        raise ValueError(
            "an http:// or https:// URL with a host, or amqp://host/queue, amqps://host/queue"
        )
    if "@" in parts.netloc and not (login and form.takes_login):
        where = "they belong in the configuration" if form.takes_login else _BY_HEADERS
        raise ValueError(f"a URL without user and password; {where}")
    if parts.query or parts.fragment:
        raise ValueError(f"a URL without query and fragment{_ENCODED if form.takes_login else ''}")
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("a URL without spaces")
    form.check(parts)
    return url


def _split(url: str) -> SplitResult:
    """The parts of a URL, by whose errors no part of a password is told."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"a URL with a port from 0 to 65535, or none{_ENCODED}") from None
    return parts


def origin(url: str) -> str:
    """The instance that an address names: ``http://host:8001/ingest`` is ``http://host:8001``."""
    return _form(url).instance(url)


def joined(instance: str, path: str) -> str:
    """The whole address of a path on an instance."""
    # Every call passes here.
    return (
        instance + path if instance.startswith("http") else _form(instance).joined(instance, path)
    )


def path_of(url: str) -> str:
    """The path on its instance that an address names; ``/`` where it names none."""
    return _form(url).path(url)


def split_login(url: str) -> tuple[str, str | None]:
    """The address without user and password, and those as ``user:password`` if it has them."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    return (parts._replace(netloc=host).geturl(), login) if at else (url, None)


def is_http(url: str) -> bool:
    """Whether the address is one of HTTP."""
    return urlsplit(url).scheme in {"http", "https"}


def _form(url: str) -> Form:
    return FORMS.get(url.partition(":")[0], _HTTP)


def _anything(_: SplitResult) -> None:
    """Nothing more can be wrong."""


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True)
class QueueAddress:
    """A queue of a RabbitMQ: where it is, without user and password.

    ``path`` is what goes along with each message; ``/`` for nothing.
    """

    scheme: str
    host: str
    port: int
    vhost: str
    queue: str
    path: str = "/"

    @classmethod
    def of(cls, url: str) -> "QueueAddress":
        """Read an address.

        Raises:
            ValueError: saying what is allowed.
        """
        parts = urlsplit(url)
        names = parts.path.removeprefix("/").split("/")
        if not names[-1]:
            raise ValueError(f"{parts.scheme}://host/queue or {parts.scheme}://host/vhost/queue")
        if len(names) > 2 or "@" in parts.path:  # noqa: PLR2004 - a vhost and a queue
            raise ValueError(f"a queue, or a vhost and a queue{_ENCODED}")
        vhost = unquote(names[0]) if len(names) > 1 else ""
        port = parts.port or AMQP_PORTS[parts.scheme]
        found = cls(
            parts.scheme,
            parts.hostname or "",
            port,
            vhost or "/",
            unquote(names[-1]),
            parts.fragment or "/",
        )
        if any(len(each.encode()) > MAX_NAME_BYTES for each in (found.vhost, found.queue)):
            raise ValueError(f"names of vhost and queue of at most {MAX_NAME_BYTES} bytes")
        return found

    @property
    def broker(self) -> str:
        """The broker and vhost, written in one way."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{quote(self.vhost, safe='')}"


def _check_queue(parts: SplitResult) -> None:
    login, at, _ = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    if at and not (user and password):
        raise ValueError("a URL with both user and password, or with neither")
    QueueAddress.of(parts.geturl())


def _queue(url: str) -> str:
    return split_login(url)[0].partition("#")[0]


def _with_message(instance: str, path: str) -> str:
    return instance if path == "/" else f"{instance}#{path}"


_HTTP = Form(_anything, _server, str.__add__, lambda url: urlsplit(url).path or "/")
_AMQP = Form(_check_queue, _queue, _with_message, lambda _: "/", takes_login=True)

FORMS: Mapping[str, Form] = {"http": _HTTP, "https": _HTTP, "amqp": _AMQP, "amqps": _AMQP}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
