"""Who does the tasks: ``agents``, ``routing_rules``, ``load_balancing``."""

from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr

from orchestrator.config.values import ConfiguredUrl, Endpoint, Name, Section, Share, Text
from orchestrator.models import Completion, Dispatch, LimitMode
from orchestrator.values import DEFAULT_PRIORITY, Priority, Seconds


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
    headers: dict[Text, SecretStr] = Field(default_factory=dict)
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
