"""Whether agents answer their health checks, as this process sees it."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from orchestrator.config import Settings
from orchestrator.telemetry.logging import get_logger

RECHECK_SECONDS = 5.0
"""An unhealthy instance is asked again at least this often."""
_FIRST_SPREAD_SECONDS = 0.2
NOT_CHECKED = "not checked yet"

log = get_logger(__name__)

Probe = Callable[[str, float], Awaitable[str | None]]
"""GETs a URL within a timeout; None when all is well, else what is wrong."""


class AgentHealth:
    """Asks every instance of every agent in its interval, with jitter."""

    def __init__(self, settings: Settings, probe: Probe) -> None:
        self._settings = settings
        self._probe = probe
        self._problems: dict[tuple[str, str], str | None] = {
            (name, instance.url): NOT_CHECKED
            for name, agent in settings.agents.items()
            for instance in agent.instances
        }

    def healthy(self, agent: str) -> bool:
        """Whether at least one instance of the agent answered its last check."""
        return any(
            problem is None for (name, _), problem in self._problems.items() if name == agent
        )

    @property
    def healthy_count(self) -> int:
        """How many agents are healthy."""
        return sum(map(self.healthy, self._settings.agents))

    async def run(self) -> None:
        """Check until cancelled."""
        async with asyncio.TaskGroup() as group:
            for agent, url in self._problems:
                group.create_task(self._watch(agent, url))

    async def _watch(self, agent: str, url: str) -> None:
        check = self._settings.agents[agent].health_check
        interval = check.interval or self._settings.load_balancing.health_check_interval
        await asyncio.sleep(random.uniform(0, _FIRST_SPREAD_SECONDS))  # noqa: S311 - spreads load
        while True:
            try:
                problem = await self._probe(url + check.path, check.timeout)
            except Exception as error:  # noqa: BLE001 - one broken check must not end all others
                problem = f"the check itself failed: {type(error).__name__}"
            self._note(agent, url, problem)
            pause = min(interval, RECHECK_SECONDS) if problem else interval
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load

    def _note(self, agent: str, url: str, problem: str | None) -> None:
        before = self._problems[agent, url]
        self._problems[agent, url] = problem
        if problem and (before is None or before == NOT_CHECKED):
            log.warning("agent_unhealthy", agent=agent, instance=url, reason=problem)
        elif before and not problem and before != NOT_CHECKED:
            log.info("agent_healthy", agent=agent, instance=url)
