"""The engine, and what it keeps: ``temporal``, ``storage``, ``payloads``."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from orchestrator.config.values import Name, Origin, Port, Section, Text, Url
from orchestrator.encryption_keys import EncryptionKey
from orchestrator.endpoints import is_loopback
from orchestrator.values import Seconds

DAY_SECONDS = 86_400.0


def _encryption_key(key: SecretStr | None) -> SecretStr | None:
    if key is None or not key.get_secret_value():
        return None
    EncryptionKey.of(key.get_secret_value())
    return key


class Embedded(Section):
    """``temporal.embedded``: the engine that `orchestrator run` starts."""

    port: Port = 7233
    ui_port: Port = 8233
    synchronous: Literal["normal", "full"] = "normal"
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 7


class Tls(Section):
    """``temporal.tls``: true, or a private authority and a client certificate: files, or PEM."""

    enabled: bool = True
    server_name: Text | None = None
    ca_file: Text | None = None
    cert_file: Text | None = None
    key_file: Text | None = None
    ca_data: str | None = None
    cert_data: str | None = None
    key_data: SecretStr | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if bool(self.cert_file or self.cert_data) != bool(self.key_file or self.key_data):
            raise ValueError("a client certificate has two parts: cert_file and key_file")
        return self


def _tls(value: Any) -> Any:
    return {"enabled": value} if isinstance(value, bool) else value


class Versioning(Section):
    """``temporal.versioning``: Worker Versioning of the engine (docs/upgrades.md).

    Without it every worker carries on every workflow. ``tasks`` is what becomes of running tasks
    and batches when another version becomes current: it carries them on, or the workers of their
    own version do. Without ``build_id`` that is the version of the package.
    """

    enabled: bool = False
    deployment: Name = "orchestrator"
    build_id: Name | None = None
    tasks: Literal["auto_upgrade", "pinned"] = "auto_upgrade"


class Temporal(Section):
    """``temporal``: the engine's address, or ``embedded``.

    Without an address the SDK's standard environment may tell the whole (engine/standard.py), by
    ``profile`` or by TEMPORAL_PROFILE. ``compression`` is of the calls to the engine; ``auto`` is
    gzip for one on another machine.
    """

    address: Annotated[
        str, Field(pattern=r"^(embedded|[^\s/:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})$")
    ] = "embedded"
    profile: Text | None = None
    namespace: Name = "default"
    tls: Annotated[Tls | None, BeforeValidator(_tls)] = None
    api_key: SecretStr | None = None
    grpc_meta: dict[Text, SecretStr] = Field(default_factory=dict)
    embedded: Embedded = Embedded()
    versioning: Versioning = Versioning()
    ui_url: Url | None = None
    compression: Literal["auto", "gzip", "none"] = "auto"
    rpc_timeout: Seconds = 5.0
    connect_timeout: Seconds = 15.0
    shutdown_grace: Seconds = 30.0

    @property
    def is_embedded(self) -> bool:
        """Whether the engine is one that we start ourselves."""
        return self.address == "embedded"

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted: as ``tls`` says, else where there is an API key."""
        return self.tls.enabled if self.tls else bool(self.api_key)

    @property
    def compresses(self) -> bool:
        """Whether calls to the engine are compressed."""
        if self.compression == "auto":
            return not is_loopback(self.target.rpartition(":")[0].strip("[]"))
        return self.compression == "gzip"

    @property
    def target(self) -> str:
        """The address to connect to, host:port."""
        return f"127.0.0.1:{self.embedded.port}" if self.is_embedded else self.address

    @property
    def web_ui(self) -> str | None:
        """Where the engine's Web UI is; None where nobody has said."""
        embedded = f"http://127.0.0.1:{self.embedded.ui_port}" if self.is_embedded else None
        return self.ui_url or embedded


class Storage(Section):
    """``storage``: where the embedded engine keeps its file."""

    data_dir: Path = Field(default=Path(".data"), strict=False)


class Encryption(Section):
    """``payloads.encryption``: keys of AES-256-GCM; the first encrypts, all of them decrypt.

    Those of ``keys_file``, one a line, come after those of ``keys``. With ``encrypt: false`` they
    only decrypt: before encryption is turned on everywhere, or after it was turned off.
    """

    encrypt: bool = True
    keys: tuple[Annotated[SecretStr | None, AfterValidator(_encryption_key)], ...] = ()
    keys_file: Path | None = Field(default=None, strict=False)

    @property
    def is_on(self) -> bool:
        """Whether payloads are encrypted."""
        return any(self.keys) or self.keys_file is not None


class PayloadStorage(Section):
    """``payloads.storage``: where payloads of ``threshold`` bytes and more are kept.

    ``directory`` is by default ``payloads`` in the data directory. ``margin`` is how long they are
    kept beyond the engine's retention, in seconds.
    """

    type: Literal["none", "directory", "s3"] = "none"
    directory: Path | None = Field(default=None, strict=False)
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = None
    prefix: Annotated[str, Field(max_length=200, pattern=r"^([A-Za-z0-9_.-]+/)*$")] = ""
    region: Text | None = None
    endpoint_url: Url | None = None
    threshold: Annotated[int, Field(ge=1024, le=1_900_000)] = 256 * 1024
    margin: Annotated[float, Field(ge=2 * DAY_SECONDS)] = 7 * DAY_SECONDS

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.type == "s3" and self.bucket is None:
            raise ValueError("bucket is missing, which type s3 needs")
        return self

    @property
    def is_on(self) -> bool:
        """Whether there is one."""
        return self.type != "none"


class CodecServer(Section):
    """``payloads.codec_server``: what reads payloads for the Temporal Web UI and command line.

    ``origins`` are those of Web UIs, by default the one of ``temporal.ui_url``, or the embedded
    one. Who may ask, ``security`` says.
    """

    host: Text = "127.0.0.1"
    port: Port = 8081
    origins: tuple[Origin, ...] = ()


class Payloads(Section):
    """``payloads``: how what tasks carry is kept by the engine: encrypted, and where if large."""

    encryption: Encryption = Encryption()
    storage: PayloadStorage = PayloadStorage()
    codec_server: CodecServer = CodecServer()
