"""The configuration as typed, frozen models; orchestrator/config_file.py reads it from YAML.

Times are seconds, sizes are bytes. Unknown keys are errors.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)

from orchestrator import endpoints
from orchestrator.addresses import Allowed
from orchestrator.encryption_keys import EncryptionKey
from orchestrator.models import (
    DEFAULT_PRIORITY,
    Completion,
    Dispatch,
    LimitMode,
    Priority,
    RateLimit,
    Seconds,
    Tenant,
)
from orchestrator.signing import key_of

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
# What both brokers take; a topic's parts are divided by dots.
QueueName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][\w.:-]*$")]
_BROKER_SCHEMES = {"rabbitmq": ("amqp", "amqps"), "redis": ("redis", "rediss")}

MIN_SECRET_CHARACTERS = 16
ENGINE_BYTES = 2_000_000
"""The engine refuses single payloads over 2 MiB, partly by retrying for ever; we stop before."""
TASK_BYTES = 1_950_000
"""The most that a task may carry without a storage for large payloads."""
STORED_BYTES = 64 * 1024 * 1024
"""What a task may carry with one, where nothing else is said."""
DAY_SECONDS = 86_400.0


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


def _redis_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None and urlsplit(url.get_secret_value()).scheme not in {"redis", "rediss"}:
        raise ValueError("a redis:// or rediss:// URL")
    return url


def _webhook_secret(secret: SecretStr | None) -> SecretStr | None:
    # Empty is what a variable is that nobody has set, in a Compose file for example.
    if secret is None or not secret.get_secret_value():
        return None
    key_of(secret.get_secret_value())
    return secret


def _allowed_receiver(text: str) -> str:
    Allowed.of(text)
    return text


def _encryption_key(key: SecretStr | None) -> SecretStr | None:
    if key is None or not key.get_secret_value():
        return None
    EncryptionKey.of(key.get_secret_value())
    return key


def _long_secret(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"at least {MIN_SECRET_CHARACTERS} characters, and hard to guess")
    return secret


def _origin(text: str) -> str:
    if _http_url(text) != text or urlsplit(text).path:
        raise ValueError("an origin such as https://temporal.example.com, without a path")
    return text


TaskBytes = Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)]
Url = Annotated[str, AfterValidator(_http_url)]
AgentUrl = Annotated[str, AfterValidator(_agent_url)]
"""Of an agent's instance, by whichever transport; user and password are for the file alone."""
ConfiguredUrl = Annotated[str, AfterValidator(_configured_url)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]


class Section(BaseModel):
    """The common rules of every block of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class AgentIdentity(Section):
    """``agent``: the orchestrator's own name and where its API listens.

    Told to stop, it goes on taking requests for ``drain`` seconds, while /health says that it is
    stopping: as long as whatever spreads the requests takes to notice.
    """

    name: Text = "orchestration_agent"
    host: Text = "127.0.0.1"
    port: Port = 8000
    drain: Annotated[float, Field(ge=0, le=600)] = 0.0


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
    ``profile`` or by TEMPORAL_PROFILE.
    """

    address: Annotated[
        str, Field(pattern=r"^(embedded|[^\s/:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})$")
    ] = "embedded"
    profile: Text | None = None
    namespace: Name = "default"
    tls: Annotated[Tls | None, BeforeValidator(_tls)] = None
    api_key: SecretStr | None = None
    grpc_meta: dict[Text, SecretStr] = {}
    embedded: Embedded = Embedded()
    versioning: Versioning = Versioning()
    ui_url: Url | None = None
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
    def target(self) -> str:
        """The address to connect to, host:port."""
        return f"127.0.0.1:{self.embedded.port}" if self.is_embedded else self.address

    @property
    def web_ui(self) -> str | None:
        """Where the engine's Web UI is; None where nobody has said."""
        embedded = f"http://127.0.0.1:{self.embedded.ui_port}" if self.is_embedded else None
        return self.ui_url or embedded


class Instance(Section):
    """One address that serves an agent."""

    url: ConfiguredUrl
    weight: Annotated[int, Field(ge=1, le=1000)] = 1


class HealthCheck(Section):
    """``health_check`` of an agent: GET path answers an expected status within timeout.

    An instance's first check decides at once; later it takes so many checks in a row that say
    otherwise. Without ``expected`` any 2xx is right.
    """

    path: Annotated[str, Field(pattern=r"^/\S*$")] = "/health"
    expected: tuple[Annotated[int, Field(ge=100, le=599)], ...] = ()
    interval: Seconds | None = None
    timeout: Seconds = 5.0
    healthy_threshold: Annotated[int, Field(ge=1, le=100)] = 2
    unhealthy_threshold: Annotated[int, Field(ge=1, le=100)] = 3


class AgentRateLimit(Section):
    """``rate_limit`` of an agent: calls a minute, and how many at once after a pause."""

    rate: Annotated[float, Field(gt=0)] | None = None
    burst: Annotated[int, Field(ge=1)] | None = None
    mode: LimitMode | None = None


class Agent(Section):
    """``agents.<name>``: one agent and where it runs."""

    description: str | None = None
    capabilities: tuple[Text, ...] = ()
    instances: tuple[Instance, ...] = ()
    endpoint: Endpoint = "/"
    headers: dict[Text, SecretStr] = {}
    health_check: HealthCheck = HealthCheck()
    rate_limit: AgentRateLimit = AgentRateLimit()
    max_connections: Annotated[int, Field(ge=1, le=10_000)] | None = None
    idempotent: bool = True


class Match(StrEnum):
    """How a rule's pattern is understood; ``auto`` decides by its characters."""

    AUTO = "auto"
    EXACT = "exact"
    GLOB = "glob"
    REGEX = "regex"


class Rule(Section):
    """``routing_rules[]``: which agent serves a pattern, where, and how long it may take."""

    pattern: Text
    match: Match = Match.AUTO
    target_agent: Name
    endpoint: Endpoint
    description: str | None = None
    timeout: Seconds = 30.0
    priority: Priority = DEFAULT_PRIORITY
    dispatch: Dispatch = Dispatch.QUEUED
    fallback_agents: tuple[Name, ...] = ()
    completion: Completion = Completion.CALLBACK
    answer_timeout: Seconds | None = None
    progress_timeout: Seconds | None = None
    poll_interval: Seconds = 5.0


Endpointed = TypeVar("Endpointed", Rule, Agent)


class LoadBalancing(Section):
    """``load_balancing``: how an instance is chosen."""

    strategy: Literal["round_robin", "least_connections", "weighted", "latency"] = "round_robin"
    health_check_interval: Seconds = 30.0
    max_connections_per_agent: Annotated[int, Field(ge=1, le=10_000)] = 100
    panic_threshold: Share = 0.5
    slow_start: Annotated[float, Field(ge=0, le=3600)] = 10.0


class PriorityQueue(Section):
    """``priority_queue``: how much may wait, and tenants' shares of each priority level."""

    max_queue_size: Annotated[int, Field(ge=1)] = 10_000
    tenant_weights: dict[Tenant, Annotated[float, Field(ge=0.001, le=1000)]] = {}


class Coalescing(Section):
    """``coalescing``: how tasks of rules with ``dispatch: coalesced`` are gathered.

    While earlier ones are being started they are gathered for ``window`` seconds, or until there
    are ``max_tasks``; with nothing being started they wait for nobody. A process has ``max_starts``
    under way at once, and who comes before a group has its turn goes with it.
    """

    window: Annotated[float, Field(ge=0, le=1)] = 0.005
    max_tasks: Annotated[int, Field(ge=1, le=5000)] = 500
    max_starts: Annotated[int, Field(ge=1, le=100)] = 1


class RateLimiting(Section):
    """``rate_limiting``: the default of every agent; calls a minute.

    It holds where the file has this block; without it only agents with a ``rate_limit`` of their
    own have one. ``redis`` lets all API processes share the limits of mode ``reject``.
    """

    enabled: bool = True
    default_rate: Annotated[float, Field(gt=0)] = 100.0
    burst_size: Annotated[int, Field(ge=1)] = 20
    mode: LimitMode = LimitMode.REJECT
    redis: Annotated[SecretStr | None, AfterValidator(_redis_url)] = None


class CircuitBreaker(Section):
    """``error_recovery.circuit_breaker``: what the threshold and the timeout beside it leave open.

    ``open_backoff`` and ``max_open`` say how the time that it stays open grows; rates are shares
    of the calls in a window of ``window_calls``, or of ``window_seconds`` where that is given.
    """

    failure_rate: Rate | None = None
    slow_call_rate: Rate | None = None
    slow_call_seconds: Seconds = 60.0
    window_calls: Annotated[int, Field(ge=1, le=100_000)] = 100
    window_seconds: Seconds | None = None
    minimum_calls: Annotated[int, Field(ge=1, le=100_000)] = 10
    open_backoff: Annotated[float, Field(ge=1, le=100)] = 2.0
    max_open: Seconds = 300.0
    half_open_permits: Annotated[int, Field(ge=1, le=1000)] = 3
    half_open_wait: Seconds = 600.0


class ErrorRecovery(Section):
    """``error_recovery``: retries, and what follows when they are used up."""

    max_retries: Annotated[int, Field(ge=0, le=1000)] = 3
    retry_delay: Seconds = 1.0
    backoff_multiplier: Annotated[float, Field(ge=1, le=100)] = 2.0
    max_retry_delay: Seconds = 60.0
    retry_jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_retry_after: Seconds = 300.0
    task_timeout: Seconds = 3600.0
    circuit_breaker_threshold: Annotated[int, Field(ge=1)] = 5
    circuit_breaker_timeout: Seconds = 30.0
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    when_unavailable: Literal["reject", "queue"] = "reject"
    dead_letter_queue: bool = True


class DeadLetters(Section):
    """``dead_letters``: what becomes of tasks whose retries were exhausted.

    ``redrive_on_recovery`` runs an agent's again when its breaker closes, ``redrive_rate`` a
    second; ``expire_after`` discards them after so many seconds.
    """

    expire_after: Seconds | None = None
    redrive_on_recovery: bool = False
    redrive_rate: Annotated[float, Field(gt=0, le=1000)] = 10.0


class MessageQueue(Section):
    """``message_queue``: the broker, if any; ``url`` stands for host, port, user and vhost at once.

    ``host`` and ``port`` are enough for a broker on this machine. ``ingest`` takes tasks from
    ``queue``, ``events`` sends what happens; a process that shall not do either sets it to false.
    With ``tenant`` all that comes is that tenant's, without it what each message says.
    """

    type: Literal["none", "rabbitmq", "redis"] = "none"
    host: Text = "localhost"
    port: Port | None = None
    url: SecretStr | None = None
    username: Text | None = None
    password: SecretStr | None = None
    tls: bool = False
    vhost: Text = "/"
    database: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    ingest: bool = True
    queue: QueueName = "orchestrator.tasks"
    dead_letter_queue: QueueName = "orchestrator.tasks.dead"
    group: QueueName = "orchestrator"
    tenant: Tenant | None = None
    declare_queues: bool = True
    prefetch: Annotated[int, Field(ge=1, le=10_000)] = 50
    max_length: Annotated[int, Field(ge=1)] = 100_000
    delivery_limit: Annotated[int, Field(ge=1, le=10_000)] = 20
    reclaim_after: Annotated[float, Field(ge=1, le=3600)] = 30.0
    events: bool = True
    events_exchange: QueueName = "orchestrator.events"

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        schemes = _BROKER_SCHEMES.get(self.type)
        if self.queue == self.dead_letter_queue:
            raise ValueError("queue and dead_letter_queue have to be two")
        if self.url is None or schemes is None:
            return self
        parts = urlsplit(self.url.get_secret_value())
        if parts.scheme not in schemes or not parts.hostname:
            # The URL itself may hold a password.
            raise ValueError(f"url has to be {schemes[0]}://host:port or {schemes[1]}://... here")
        return self

    @property
    def sends_events(self) -> bool:
        """Whether what happens to tasks and agents is told to the broker."""
        return self.type != "none" and self.events

    @property
    def takes_tasks(self) -> bool:
        """Whether tasks are taken from the broker."""
        return self.type != "none" and self.ingest


class Callbacks(Section):
    """``callbacks``: how they are signed, whom they may reach, and when they are repeated.

    Each is signed by ``secret`` and by all of ``secrets``. After an attempt that failed the next
    one of ``retry_delays`` is waited for, longer by chance by up to a fifth. ``allow`` names
    private receivers: hosts, host:port, networks. Without ``ports``, public receivers may have 80,
    443 and those from 1024 on.
    """

    secret: Annotated[SecretStr | None, AfterValidator(_webhook_secret)] = None
    secrets: tuple[Annotated[SecretStr | None, AfterValidator(_webhook_secret)], ...] = ()
    allow: tuple[Annotated[Text, AfterValidator(_allowed_receiver)], ...] = ()
    ports: tuple[Port, ...] = ()
    retry_delays: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=100)] = (
        *(5.0, 30.0, 120.0, 600.0, 1800.0),
        *(3600.0, 7200.0, 14_400.0, 21_600.0, 43_200.0),
    )
    timeout: Annotated[float, Field(gt=0, le=60)] = 15.0
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 100


class Completions(Section):
    """``completions``: the URLs to which agents post what they answer later.

    ``secret`` signs them; ``public_url`` is the API as the agents reach it.
    """

    secret: Annotated[SecretStr | None, AfterValidator(_long_secret)] = None
    public_url: Url | None = None


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
    quotas: dict[Tenant | Literal["*"], Quota] = {}

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
    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()


class Payloads(Section):
    """``payloads``: how what tasks carry is kept by the engine: encrypted, and where if large."""

    encryption: Encryption = Encryption()
    storage: PayloadStorage = PayloadStorage()
    codec_server: CodecServer = CodecServer()


class Logging(Section):
    """``logging``: ``auto`` is colour on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Section):
    """The whole file. Every block may be left out."""

    agent: AgentIdentity = AgentIdentity()
    temporal: Temporal = Temporal()
    agents: dict[Name, Agent] = {}
    routing_rules: tuple[Rule, ...] = ()
    load_balancing: LoadBalancing = LoadBalancing()
    priority_queue: PriorityQueue = PriorityQueue()
    coalescing: Coalescing = Coalescing()
    rate_limiting: RateLimiting = RateLimiting()
    error_recovery: ErrorRecovery = ErrorRecovery()
    dead_letters: DeadLetters = DeadLetters()
    message_queue: MessageQueue = MessageQueue()
    callbacks: Callbacks = Callbacks()
    completions: Completions = Completions()
    monitoring: Monitoring = Monitoring()
    limits: Limits = Limits()
    security: Security = Security()
    storage: Storage = Storage()
    payloads: Payloads = Payloads()
    logging: Logging = Logging()

    _logins: dict[str, SecretStr] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _keep_logins_apart(self) -> Self:
        """Take users and passwords out of agents' addresses, which travel and are shown."""
        rules = tuple(self._without_login(rule) for rule in self.routing_rules)
        object.__setattr__(self, "routing_rules", rules)
        agents = {name: self._without_logins(agent) for name, agent in self.agents.items()}
        object.__setattr__(self, "agents", agents)
        return self

    def _without_logins(self, agent: Agent) -> Agent:
        urls = [self._apart(each.url) for each in agent.instances]
        if urls == [each.url for each in agent.instances]:
            return self._without_login(agent)
        instances = tuple(
            each.model_copy(update={"url": url})
            for each, url in zip(agent.instances, urls, strict=True)
        )
        return self._without_login(agent.model_copy(update={"instances": instances}))

    def _without_login(self, of: Endpointed) -> Endpointed:
        endpoint = self._apart(of.endpoint)
        return of if endpoint == of.endpoint else of.model_copy(update={"endpoint": endpoint})

    def _apart(self, url: str) -> str:
        if "@" not in url or "://" not in url:
            return url
        url, login = endpoints.split_login(url)
        if login is not None:
            self._logins[endpoints.origin(url)] = SecretStr(login)
        return url

    def with_logins_of(self, other: "Settings") -> Self:
        """These settings with the logins of others, whose addresses they have."""
        self._logins = dict(other.logins)
        return self

    @property
    def logins(self) -> Mapping[str, SecretStr]:
        """``user:password`` by the instance in whose address they were, as they stand in a URL."""
        return self._logins

    @model_validator(mode="after")
    def _agents_of_rules(self) -> Self:
        """Give an agent that names no instances those of its rules, one for each origin."""
        origins: dict[str, dict[str, None]] = {}
        for rule in self.routing_rules:
            if "://" in rule.endpoint:
                url = endpoints.origin(rule.endpoint)
                origins.setdefault(rule.target_agent, {})[url] = None
        agents = dict(self.agents)
        for name, urls in origins.items():
            agent = agents.get(name, Agent())
            if not agent.instances:
                instances = tuple(Instance(url=url) for url in urls)
                agents[name] = agent.model_copy(update={"instances": instances})
        object.__setattr__(self, "agents", agents)
        return self

    @model_validator(mode="after")
    def _limits_of_storage(self) -> Self:
        """Let payloads be as large as they may with a storage, where the file does not say."""
        if self.payloads.storage.is_on:
            adapted = dict.fromkeys(("max_payload_bytes", "max_result_bytes"), STORED_BYTES)
            given = self.limits.model_dump(exclude_unset=True)
            object.__setattr__(self, "limits", Limits.model_validate(adapted | given))
        return self

    @property
    def max_blob_bytes(self) -> int:
        """What may be in one payload: quoted in another's JSON, a task's may double."""
        if not self.payloads.storage.is_on:
            return ENGINE_BYTES
        return 2 * max(self.limits.max_payload_bytes, self.limits.max_result_bytes) + ENGINE_BYTES

    def connections(self, agent: str) -> int:
        """How many calls a worker process makes to the agent at once."""
        configured = self.agents.get(agent, Agent()).max_connections
        return configured or self.load_balancing.max_connections_per_agent

    def rate_limit(self, agent: str) -> RateLimit | None:
        """The agent's limit, as the file has it; None where it has none."""
        general = self.rate_limiting
        own = self.agents.get(agent, Agent()).rate_limit
        if not general.enabled or not (
            own.model_fields_set or "rate_limiting" in self.model_fields_set
        ):
            return None
        return RateLimit(
            rate=own.rate or general.default_rate,
            burst=own.burst or general.burst_size,
            mode=own.mode or general.mode,
        )
