"""How tasks are let in, wait and are repeated: queue, limits, retries, dead letters."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from orchestrator.config.values import Rate, Section, Weight
from orchestrator.models import LimitMode
from orchestrator.values import Seconds, Tenant


def _redis_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None and urlsplit(url.get_secret_value()).scheme not in {"redis", "rediss"}:
        raise ValueError("a redis:// or rediss:// URL")
    return url


class PriorityQueue(Section):
    """``priority_queue``: how much may wait, and tenants' shares of each priority level."""

    max_queue_size: Annotated[int, Field(ge=1)] = 10_000
    tenant_weights: dict[Tenant, Weight] = Field(default_factory=dict)


class Coalescing(Section):
    """``coalescing``: how tasks of rules with ``dispatch: coalesced`` are gathered.

    While earlier ones are being started they are gathered for ``window`` seconds, or until there
    are ``max_tasks``; with nothing being started, and no rest after a start, they wait for nobody.
    A process has ``max_starts`` under way at once, and who comes before a group has its turn goes
    with it.
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
