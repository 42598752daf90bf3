"""Strategies that choose one of several instances."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(eq=False)
class Instance:
    """One address that serves an agent, and what this process knows of it."""

    url: str
    weight: int = 1
    active: int = 0
    """Calls in flight."""
    latency: float = 0.0
    """Peak-sensitive moving average of the seconds a call takes."""
    credit: int = 0
    """The smooth weighted strategy's running score."""


class Strategy(Protocol):
    """A balancing strategy; one object serves one agent."""

    def select(self, instances: Sequence[Instance]) -> Instance:
        """Choose one of the instances; there is at least one."""
        ...


class RoundRobin:
    """Each instance in its turn."""

    def __init__(self) -> None:
        self._turn = 0

    def select(self, instances: Sequence[Instance]) -> Instance:
        """The next instance."""
        chosen = instances[self._turn % len(instances)]
        self._turn += 1
        return chosen


class LeastConnections:
    """The instance with the fewest calls in flight for its weight; in turn among equals."""

    def __init__(self) -> None:
        self._turn = RoundRobin()

    def select(self, instances: Sequence[Instance]) -> Instance:
        """The least loaded instance."""
        least = min(each.active / each.weight for each in instances)
        return self._turn.select([each for each in instances if each.active / each.weight == least])


class SmoothWeighted:
    """By weight, spread evenly: weights 5, 1, 1 give a a b a c a a (nginx's algorithm).

    Each choice adds every instance its weight; the richest is chosen and pays the total.
    """

    def select(self, instances: Sequence[Instance]) -> Instance:
        """The instance with the highest running score."""
        for each in instances:
            each.credit += each.weight
        chosen = max(instances, key=lambda each: each.credit)
        chosen.credit -= sum(each.weight for each in instances)
        return chosen


class LeastLatency:
    """The better of two instances drawn by chance, by moving average of latency times load.

    Two choices avoid the herd that always taking the fastest makes (Mitzenmacher, 2001).
    """

    def __init__(self, sample: Callable[..., list[Instance]] = random.sample) -> None:
        self._sample = sample

    def select(self, instances: Sequence[Instance]) -> Instance:
        """The instance with the lower cost."""
        candidates = self._sample(list(instances), min(2, len(instances)))
        # Those not measured yet all cost nothing: among them the load decides.
        return min(
            candidates,
            key=lambda each: (
                each.latency * (each.active + 1) / each.weight,
                each.active / each.weight,
            ),
        )


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "weighted": SmoothWeighted,
    "latency": LeastLatency,
}
"""By their names in ``load_balancing.strategy``."""
