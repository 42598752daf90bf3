"""The whole file."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from orchestrator import endpoints
from orchestrator.config.agents import Agent, Endpointed, Instance, LoadBalancing, Rule
from orchestrator.config.engine import Payloads, Storage, Temporal
from orchestrator.config.messages import Callbacks, Completions, MessageQueue
from orchestrator.config.service import AgentIdentity, Limits, Logging, Monitoring, Security
from orchestrator.config.tasks import (
    Coalescing,
    DeadLetters,
    ErrorRecovery,
    PriorityQueue,
    RateLimiting,
)
from orchestrator.config.values import ENGINE_BYTES, STORED_BYTES, Name, Section
from orchestrator.models import RateLimit


class Settings(Section):
    """The whole file. Every block may be left out."""

    agent: AgentIdentity = AgentIdentity()
    temporal: Temporal = Temporal()
    agents: dict[Name, Agent] = Field(default_factory=dict)
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
