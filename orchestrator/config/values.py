"""The values that the blocks of the file share: names, ports, sizes, addresses."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from orchestrator import endpoints

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0.001, le=1000)]
Rate = Annotated[float, Field(gt=0, le=1)]
# What both brokers take; a topic's parts are divided by dots.
QueueName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][\w.:-]*$")]
ENGINE_BYTES = 2_000_000
"""The engine refuses single payloads over 2 MiB, partly by retrying for ever; we stop before."""
TASK_BYTES = 1_950_000
"""The most that a task may carry without a storage for large payloads."""
STORED_BYTES = 64 * 1024 * 1024
"""What a task may carry with one, where nothing else is said."""


def _http_url(text: str) -> str:
    if not endpoints.is_http(text):
        raise ValueError("an http:// or https:// URL with a host")
    return endpoints.checked(text).rstrip("/")


def _agent_url(text: str) -> str:
    return endpoints.checked(text).rstrip("/")


def _configured_url(text: str) -> str:
    return endpoints.checked(text, login=True).rstrip("/")


def _endpoint(text: str) -> str:
    if text.startswith("/") and not text.startswith("//") and not re.search(r"[\s#]", text):
        return text
    if "://" in text:
        # With its last slash, which means something to the agent.
        return endpoints.checked(text, login=True)
    raise ValueError(
        "a path on the agent's instances such as /ingest, or a whole URL: http(s)://host/path, "
        "amqp(s)://host/queue"
    )


def _origin(text: str) -> str:
    if _http_url(text) != text or urlsplit(text).path:
        raise ValueError("an origin such as https://temporal.example.com, without a path")
    return text


Origin = Annotated[str, AfterValidator(_origin)]
TaskBytes = Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)]
Url = Annotated[str, AfterValidator(_http_url)]
AgentUrl = Annotated[str, AfterValidator(_agent_url)]
"""Of an agent's instance, by whichever transport; user and password are for the file alone."""
ConfiguredUrl = Annotated[str, AfterValidator(_configured_url)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]


class Section(BaseModel):
    """The common rules of every block of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
