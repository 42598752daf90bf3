"""How often the engine is asked for its numbers."""

from orchestrator.engine.overview import QUEUES_A_SECOND, REFRESH_SECONDS, refresh_seconds


def test_the_queues_of_few_agents_are_looked_at_once_a_second() -> None:
    """Up to a hundred agents the numbers are fresh."""
    assert [REFRESH_SECONDS] * 3 == [refresh_seconds(agents) for agents in (0, 18, 100)]


def test_many_agents_make_the_looks_rarer_not_dearer() -> None:
    """Five hundred queues are looked at every five seconds, which is a hundred a second."""
    assert 500 / refresh_seconds(500) == QUEUES_A_SECOND
