"""Every API and worker is restarted while tasks come: the short form of `make rolling`."""

from pathlib import Path

import pytest

from bench.rolling import answer, doubled, roll
from tests.support.agents import Agent

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.own_topology("it starts its own"),
]

RATE = 5.0


async def test_a_rolling_restart_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Nor does a request fail that a client would not send again."""
    async with Agent(decide=answer) as agent, doubled(tmp_path, agent) as (stack, parts):
        found = await roll(stack, parts, agent, RATE, seconds=0)

    assert 4 == len(found.restarts)
    assert ([], [], {}) == (found.failed, found.lost, found.doubled)
    assert found.holds
