"""The API itself and who may use it: ``agent``, ``limits``, ``security``, ``monitoring``."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from orchestrator.config.values import Port, Section, TaskBytes, Text
from orchestrator.values import Seconds, Tenant


class AgentIdentity(Section):
    """``agent``: the orchestrator's own name and where its API listens.

    Told to stop, it goes on taking requests for ``drain`` seconds, while /health says that it is
    stopping: as long as whatever spreads the requests takes to notice.
    """

    name: Text = "orchestration_agent"
    host: Text = "127.0.0.1"
    port: Port = 8000
    drain: Annotated[float, Field(ge=0, le=600)] = 0.0


class Monitoring(Section):
    """``monitoring``: the Prometheus port."""

    enable_metrics: bool = True
    metrics_port: Port = 9090


class Limits(Section):
    """``limits``: bytes; those of a task keep it below the engine's 2 MiB for one payload.

    With ``payloads.storage`` those of a task may be larger, and are STORED_BYTES unless said
    otherwise. A request's headers have to come within ``header_seconds``, its body within
    ``body_seconds``.
    """

    max_payload_bytes: TaskBytes = 1_900_000
    max_result_bytes: TaskBytes = 1_900_000
    max_batch_bytes: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 32 * 1024 * 1024
    max_header_bytes: Annotated[int, Field(ge=1024, le=1_000_000)] = 32 * 1024
    max_headers: Annotated[int, Field(ge=10, le=1000)] = 100
    header_seconds: Seconds = 15.0
    body_seconds: Seconds = 60.0
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class Jwt(Section):
    """``security.jwt``: tokens of an identity provider; ``jwks`` is a URL or a file."""

    issuer: Text
    audience: Text
    jwks: Annotated[str, Field(min_length=1, max_length=2000)]
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = ("RS256", "ES256", "EdDSA")
    tenant_claim: Text = "tenant"
    scope_claim: Text = "scope"
    scope_prefix: Annotated[str, Field(max_length=100)] = ""
    leeway: Annotated[float, Field(ge=0, le=300)] = 30.0
    jwks_seconds: Seconds = 300.0


class Quota(Section):
    """What a tenant may do: submissions a minute, open tasks at once, tasks a day (UTC)."""

    rate: Annotated[float, Field(gt=0, le=1e9)] | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    running: Annotated[int, Field(ge=1)] | None = None
    daily: Annotated[int, Field(ge=1)] | None = None


class Security(Section):
    """``security``: who may use the API, and how much of it.

    ``allow_anonymous`` lets it listen beyond loopback with nobody asked for a key; with
    ``keys_file`` or ``jwt`` everybody is, so that the two exclude each other. ``quotas`` are by
    tenant; ``*`` is for those without one of their own.
    """

    allow_anonymous: bool = False
    keys_file: Path | None = Field(default=None, strict=False)
    jwt: Jwt | None = None
    session_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    session_seconds: Seconds = 8 * 3600.0
    quotas: dict[Tenant | Literal["*"], Quota] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.allow_anonymous and self.asks:
            raise ValueError(
                "allow_anonymous has nobody asked for a key, keys_file and jwt have everybody "
                "asked: leave one of them out"
            )
        return self

    @property
    def asks(self) -> bool:
        """Whether callers have to say who they are."""
        return self.keys_file is not None or self.jwt is not None


class Logging(Section):
    """``logging``: ``auto`` is colour on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
