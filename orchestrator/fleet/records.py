"""What travels to and from the workflow AgentFleet: its configuration, reports, orders, snapshot.

Times of day are UTC, durations are seconds.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from orchestrator.config import AgentUrl
from orchestrator.models import Internal, LimitMode, Model
from orchestrator.resilience.breaker_policy import BreakerState

FLEET_ID = "agent-fleet"
FLEET_WORKFLOW = "AgentFleet"


class HealthCheckSpec(Internal):
    """How an agent's instances are checked; without ``expected`` any 2xx is right."""

    path: str = "/health"
    expected: tuple[int, ...] = ()
    interval: float = 30.0
    timeout: float = 5.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3


class InstanceSpec(Internal):
    """An instance as the configuration has it."""

    url: str
    weight: int = 1


class AgentSpec(Internal):
    """An agent as the configuration has it."""

    instances: tuple[InstanceSpec, ...] = ()
    health_check: HealthCheckSpec = HealthCheckSpec()


class FleetConfig(Internal):
    """The argument of signal ``configure``: the agents of the configuration, by name."""

    agents: dict[str, AgentSpec] = Field(default_factory=dict)
    redrive_on_recovery: bool = False
    redrive_rate: float = 10.0
    events: bool = False


class BreakerReport(Internal):
    """A process's breaker has opened or closed, ``age_seconds`` before this was sent.

    ``remaining_seconds`` is how long an open one stays so from then on.
    """

    agent: str
    instance: str
    state: BreakerState
    age_seconds: float = 0.0
    remaining_seconds: float = 0.0
    reason: str = ""


class BreakerReports(Internal):
    """The argument of signal ``report``: what one process found out, in its order."""

    process: str
    reports: tuple[BreakerReport, ...]


class InstanceOrder(Model):
    """The argument of ``drain``, ``resume``, ``trip``, ``reset`` and ``disable_breaker``.

    Without ``instance`` it is about every instance that the agent has.
    """

    agent: str
    instance: str | None = None
    reason: str = Field(default="", max_length=500)
    by: str = Field(default="", max_length=100)


class InstanceChange(Model):
    """The argument of ``add_instance`` and ``remove_instance``.

    Without ``weight`` a new instance has that of the configuration, or 1; a known one keeps its.
    """

    agent: str
    url: AgentUrl
    weight: int | None = Field(default=None, ge=1, le=1000)
    reason: str = Field(default="", max_length=500)
    by: str = Field(default="", max_length=100)


class LimitOrder(Model):
    """The argument of ``set_limit``: what is not named stays; ``clear`` takes all back first."""

    agent: str
    rate: float | None = Field(default=None, gt=0, le=1e9, description="Calls a minute")
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    mode: LimitMode | None = None
    max_connections: int | None = Field(default=None, ge=1, le=10_000)
    clear: bool = False
    reason: str = Field(default="", max_length=500)
    by: str = Field(default="", max_length=100)


class HealthState(StrEnum):
    """What an instance's health checks say."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class BreakerRecord(Internal):
    """The last that any process found out about an instance: open until a time, or closed."""

    state: BreakerState
    version: int
    changed_at: datetime
    until: datetime | None = None
    reason: str = ""
    process: str = ""


class BreakerOrder(Internal):
    """The last that an operator ordered: forced_open, disabled, or closed for a reset."""

    state: BreakerState
    version: int
    at: datetime
    reason: str = ""


class InstanceRecord(Internal):
    """An instance: ``added`` at run time, or of the configuration."""

    url: str
    weight: int = 1
    added: bool = False
    draining: bool = False
    health: HealthState = HealthState.UNKNOWN
    health_reason: str = ""
    health_since: datetime | None = None
    breaker: BreakerRecord | None = None
    order: BreakerOrder | None = None


class LimitRecord(Internal):
    """What operators set over the configuration; None where they did not."""

    rate: float | None = None
    burst: int | None = None
    mode: LimitMode | None = None
    max_connections: int | None = None


class AgentRecord(Internal):
    """An agent; ``removed`` are instances of the configuration that an operator took away."""

    instances: tuple[InstanceRecord, ...] = ()
    limits: LimitRecord = LimitRecord()
    health_check: HealthCheckSpec = HealthCheckSpec()
    removed: tuple[str, ...] = ()


class Happened(StrEnum):
    """What an event of the fleet is about."""

    AGENT_ADDED = "agent_added"
    AGENT_REMOVED = "agent_removed"
    INSTANCE_ADDED = "instance_added"
    INSTANCE_REMOVED = "instance_removed"
    WEIGHT_CHANGED = "weight_changed"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    BREAKER_OPENED = "breaker_opened"
    BREAKER_CLOSED = "breaker_closed"
    DRAINED = "drained"
    RESUMED = "resumed"
    TRIPPED = "tripped"
    RESET = "reset"
    BREAKER_DISABLED = "breaker_disabled"
    LIMIT_SET = "limit_set"
    REDRIVE_FAILED = "redrive_failed"


class FleetEvent(Internal):
    """Something that happened, and why; ``by`` an operator or a process.

    ``what`` is a text, since a process may be older than the event's kind.
    """

    at: datetime
    agent: str
    instance: str | None = None
    what: str
    reason: str = ""
    by: str = ""


class FleetEvents(Internal):
    """The answer of query ``events``, the latest first."""

    events: tuple[FleetEvent, ...]


class FleetSnapshot(Internal):
    """The answer of query ``snapshot``; without agents when the asker knows this version."""

    version: int
    agents: dict[str, AgentRecord] | None = None


class WatchedAgent(Internal):
    """How an agent's instances are checked, and what is known of each, by its URL."""

    check: HealthCheckSpec
    instances: dict[str, HealthState]


class HealthWatch(Internal):
    """The argument of activity ``watch_health``: whom to check, by the agent's name."""

    agents: dict[str, WatchedAgent]


class HealthChange(Internal):
    """An instance is not any more in the state that was known of it."""

    agent: str
    instance: str
    state: HealthState
    reason: str = ""


class HealthChanges(Internal):
    """What ``watch_health`` brings."""

    changes: tuple[HealthChange, ...] = ()
