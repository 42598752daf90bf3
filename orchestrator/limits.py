"""The rate limit that holds for each agent: the configuration's, and over it the operators'."""

from orchestrator.config import Settings
from orchestrator.fleet.records import FleetSnapshot, LimitRecord
from orchestrator.models import RateLimit


def effective_limit(settings: Settings, agent: str, record: LimitRecord) -> RateLimit | None:
    """The limit of an agent; None where it has none.

    A rate that operators set gives a limit to an agent that the configuration leaves without one;
    what they did not say is then as ``rate_limiting`` has it. A burst or a mode alone does not.
    """
    configured = settings.rate_limit(agent)
    rate = record.rate or (configured.rate if configured else None)
    if rate is None:
        return None
    general = settings.rate_limiting
    return RateLimit(
        rate=rate,
        burst=record.burst or (configured.burst if configured else general.burst_size),
        mode=record.mode or (configured.mode if configured else general.mode),
    )


class RateLimits:
    """The limits of all agents, as far as this process knows."""

    def __init__(self, settings: Settings) -> None:
        self._records: dict[str, LimitRecord] = {}
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Go by another configuration; what operators set stays over it."""
        self._settings = settings
        self._limits = {
            name: effective_limit(settings, name, self._records.get(name, LimitRecord()))
            for name in settings.agents
        }

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents of the configuration."""
        return tuple(self._limits)

    def of(self, agent: str) -> RateLimit | None:
        """The agent's limit; None where it has none."""
        return self._limits.get(agent)

    def sync(self, snapshot: FleetSnapshot) -> None:
        """Adopt what operators set at run time."""
        for agent, record in (snapshot.agents or {}).items():
            self._records[agent] = record.limits
            if agent in self._limits:
                self._limits[agent] = effective_limit(self._settings, agent, record.limits)
