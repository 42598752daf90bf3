"""Whom the API would let in that nobody has asked who they are."""

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from orchestrator.config import Settings
from orchestrator.endpoints import is_loopback
from orchestrator.errors import Forbidden, StartupError
from orchestrator.telemetry.logging import get_logger

log = get_logger(__name__)


def check_exposure(settings: Settings, host: str | None = None, what: str = "The API") -> None:
    """Serve nobody beyond this machine whom nobody asks who they are, unless that is wanted.

    Args:
        settings: say who is asked.
        host: where it would listen; None: where the API does.
        what: would listen.

    Raises:
        StartupError: it would.
    """
    section, host = settings.security, host or settings.agent.host
    if section.asks or is_loopback(host):
        return
    if section.allow_anonymous:
        log.warning(
            "api_asks_nobody",
            host=host,
            advice="whoever reaches this address may do everything: security.keys_file or "
            "security.jwt has them asked for a key",
        )
        return
    raise StartupError(
        f"{what} would listen on {host} and ask nobody for a key. Give keys "
        "(orchestrator keys create --help) and set security.keys_file, or security.jwt; or listen "
        "on 127.0.0.1; or set security.allow_anonymous: true where something before it asks"
    )


def is_local_only(settings: Settings) -> bool:
    """Whether it is this machine alone that keeps others away."""
    return not (settings.security.asks or settings.security.allow_anonymous)


@lru_cache(maxsize=256)
def is_nobodys(host: str) -> bool:
    """Whether a request's Host is localhost or an address, which no site can have as its name.

    A site may have its name lead to this machine ("DNS rebinding"). To a browser its pages are the
    API's own then, and nothing but that name tells them apart.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        return name.rpartition(".")[2] == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def check_host(host: str | None, what: str = "The API") -> None:
    """Whether no other site can have had a browser send a request, going by its Host.

    Raises:
        Forbidden: one can.
    """
    if host is None or is_nobodys(host):
        return
    raise Forbidden(
        f"The host '{host[:100]}' may be another site's, and nobody is asked for a key. {what} is "
        "to be called by localhost or an address; or set security.keys_file, or "
        "security.allow_anonymous: true where something before it asks"
    )
