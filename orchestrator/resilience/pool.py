"""An agent's instances in this process: lease one, call it, give it back."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from orchestrator.config import Settings, origin
from orchestrator.errors import AgentUnreachable
from orchestrator.resilience.balancer import STRATEGIES, Instance, RoundRobin, Strategy

LATENCY_HALF_LIFE_SECONDS = 10.0


class Pool:
    """The instances of one agent."""

    def __init__(
        self,
        agent: str,
        instances: Sequence[Instance],
        strategy: Strategy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.agent = agent
        self.instances = tuple(instances)
        self._strategy = strategy
        self._clock = clock
        self._measured_at: dict[Instance, float] = {}

    @contextmanager
    def lease(self, endpoint: str) -> Iterator[tuple[Instance, str]]:
        """Choose an instance for one call; yields it with the whole URL to call.

        Args:
            endpoint: a path, joined to the chosen instance's URL, or a whole URL, which names its
                instance itself.

        Raises:
            AgentUnreachable: there is no instance.
        """
        if "://" in endpoint:
            instance, url = self._of(endpoint), endpoint
        else:
            if not self.instances:
                raise AgentUnreachable(f"{self.agent} has no instances in this process")
            instance = self._strategy.select(self.instances)
            url = instance.url + endpoint
        instance.active += 1
        started = self._clock()
        try:
            yield instance, url
        except BaseException:
            self._measure(instance, started, failed=True)
            raise
        else:
            self._measure(instance, started)
        finally:
            instance.active -= 1

    def _of(self, url: str) -> Instance:
        wanted = origin(url)
        for instance in self.instances:
            if origin(instance.url) == wanted:
                return instance
        return Instance(url=wanted)

    def _measure(self, instance: Instance, started: float, *, failed: bool = False) -> None:
        """Peak EWMA: a slower call counts at once, a faster one by how long ago the last was.

        A failure that came fast says nothing about speed.
        """
        now = self._clock()
        seconds = now - started
        if instance not in self.instances or (failed and seconds < instance.latency):
            return
        previous = self._measured_at.get(instance)
        self._measured_at[instance] = now
        if previous is None or seconds >= instance.latency:
            instance.latency = seconds
            return
        kept = math.exp(-(now - previous) * math.log(2) / LATENCY_HALF_LIFE_SECONDS)
        instance.latency = instance.latency * kept + seconds * (1 - kept)


class Pools:
    """The pools of all agents of a configuration."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = dict(pools)

    @classmethod
    def of(cls, settings: Settings) -> "Pools":
        """A pool for each agent of the settings."""
        strategy = STRATEGIES[settings.load_balancing.strategy]
        return cls(
            {
                name: Pool(name, [Instance(i.url, i.weight) for i in agent.instances], strategy())
                for name, agent in settings.agents.items()
            }
        )

    def of_agent(self, agent: str) -> Pool:
        """The agent's pool; an empty one for an agent that this configuration lacks."""
        return self._pools.get(agent) or Pool(agent, (), RoundRobin())
