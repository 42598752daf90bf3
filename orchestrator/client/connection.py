"""How both clients reach the API, and how their methods are made of its calls."""

import inspect
import os
from collections.abc import Callable
from functools import update_wrapper
from typing import Any
from urllib.parse import urlsplit

import httpx

from orchestrator import __version__
from orchestrator.client.attempts import Terms
from orchestrator.client.calls import Call
from orchestrator.client.errors import ClientError

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_RETRY_SECONDS = 60.0
CONNECT_SECONDS = 5.0
KEY_VARIABLE = "ORCHESTRATOR_API_KEY"
"""The environment's variable with the API key."""

STREAM_ERRORS = (httpx.RequestError, ClientError)


def options_of(url: str | None, api_key: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What httpx's own client is made with.

    Raises:
        ValueError: the URL, or the key, cannot be used.
    """
    base = url or os.environ.get("ORCHESTRATOR_URL") or DEFAULT_URL
    key = api_key or os.environ.get(KEY_VARIABLE)
    if not _is_url(base):
        raise ValueError(f"{base!r} is not the URL of an API, such as {DEFAULT_URL}")
    headers = {"User-Agent": f"orchestration-agent/{__version__}", **options.pop("headers", {})}
    if key:
        if not (key.isascii() and key.isprintable()):
            raise ValueError("The API key holds characters that no key has")
        headers["Authorization"] = f"Bearer {key}"
    return {"base_url": base.rstrip("/"), "headers": headers, **options}


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Asked for its port, it checks that too.
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def arguments_of(call: Call[Any], terms: Terms) -> dict[str, Any]:
    """The call as httpx takes it."""
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.params),
        "headers": dict(call.headers),
        "content": call.content,
        "timeout": httpx.Timeout(terms.timeout + call.wait, connect=CONNECT_SECONDS),
    }


def made_of(method: Any, build: Callable[..., Any]) -> None:
    """Give a client's method the name, the text and the parameters of the call that it sends."""
    update_wrapper(method, build)
    signature = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = signature.replace(
        parameters=[own, *signature.parameters.values()], return_annotation=inspect.Signature.empty
    )
