"""Whether agents are healthy, as one process sees it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.agent_health import AgentHealth
from orchestrator.config import Agent, HealthCheck, Instance, Settings

DEADLINE_SECONDS = 20


class Prober:
    """Answers health checks as the test says, and remembers them."""

    def __init__(self, problems: dict[str, str | None]) -> None:
        self.problems = problems
        self.asked: list[tuple[str, float]] = []
        self.rounds = asyncio.Condition()

    async def __call__(self, url: str, timeout: float) -> str | None:
        """Check the URL."""
        async with self.rounds:
            self.asked.append((url, timeout))
            self.rounds.notify_all()
        return self.problems[url]

    async def wait(self, times: int) -> None:
        """Wait until so many checks were asked for and noted."""
        async with asyncio.timeout(DEADLINE_SECONDS), self.rounds:
            await self.rounds.wait_for(lambda: len(self.asked) >= times)
        await asyncio.sleep(0)


def settings(interval: float, **urls: list[str]) -> Settings:
    """Agents by name with their instances."""
    check = HealthCheck(path="/healthz", interval=interval, timeout=2.0)
    return Settings(
        agents={
            name: Agent(instances=tuple(Instance(url=url) for url in each), health_check=check)
            for name, each in urls.items()
        }
    )


@asynccontextmanager
async def checking(configured: Settings, prober: Prober) -> AsyncIterator[AgentHealth]:
    """Health that checks in the background."""
    health = AgentHealth(configured, prober)
    running = asyncio.create_task(health.run())
    try:
        yield health
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_nothing_is_healthy_before_its_first_check() -> None:
    """An agent must have answered to count."""
    health = AgentHealth(settings(30, a=["http://a"]), Prober({}))
    assert (False, 0) == (health.healthy("a"), health.healthy_count)


def test_an_unknown_agent_is_not_healthy() -> None:
    """Nor does asking for it fail."""
    assert not AgentHealth(Settings(), Prober({})).healthy("nobody")


async def test_one_good_instance_makes_an_agent_healthy() -> None:
    """An agent is down when none of its instances answers."""
    prober = Prober(
        {"http://a/healthz": None, "http://b/healthz": "refused", "http://c/healthz": "refused"}
    )
    async with checking(settings(30, x=["http://a", "http://b"], y=["http://c"]), prober) as health:
        await prober.wait(3)
        actual = (health.healthy("x"), health.healthy("y"), health.healthy_count)
    assert (True, False, 1) == actual


async def test_each_instance_is_asked_at_its_path_within_its_timeout() -> None:
    """The agent's own settings count."""
    prober = Prober({"http://a/p/healthz": None})
    async with checking(settings(30, x=["http://a/p"]), prober):
        await prober.wait(1)
    assert [("http://a/p/healthz", 2.0)] == prober.asked


async def test_checks_repeat_and_change_their_minds() -> None:
    """An agent that goes down and comes back is noticed both times."""
    prober = Prober({"http://a/healthz": None})
    seen = []
    async with checking(settings(0.01, x=["http://a"]), prober) as health:
        for problem in (None, "refused", None):
            prober.problems["http://a/healthz"] = problem
            await prober.wait(len(prober.asked) + 2)
            seen.append(health.healthy("x"))
    assert [True, False, True] == seen


async def test_without_agents_there_is_nothing_to_check() -> None:
    """An empty configuration ends at once instead of waiting for nothing."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await AgentHealth(Settings(), Prober({})).run()
