"""What goes out and comes in beside the API: ``message_queue``, ``callbacks``, ``completions``."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from orchestrator.addresses import Allowed
from orchestrator.config.values import Port, QueueName, Section, Text, Url
from orchestrator.signing import key_of
from orchestrator.values import Seconds, Tenant

_BROKER_SCHEMES = {"rabbitmq": ("amqp", "amqps"), "redis": ("redis", "rediss")}
MIN_SECRET_CHARACTERS = 16


def _webhook_secret(secret: SecretStr | None) -> SecretStr | None:
    # Empty is what a variable is that nobody has set, in a Compose file for example.
    if secret is None or not secret.get_secret_value():
        return None
    key_of(secret.get_secret_value())
    return secret


def _allowed_receiver(text: str) -> str:
    Allowed.of(text)
    return text


def _long_secret(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"at least {MIN_SECRET_CHARACTERS} characters, and hard to guess")
    return secret


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
