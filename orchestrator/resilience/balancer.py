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
    share: float = 1.0
    """How much of its weight counts: less while it is ramped up after it came back."""
    credit: float = 0.0
    """The running score of the strategies that take turns."""

    @property
    def pull(self) -> float:
        """The weight that counts now."""
        return self.weight * self.share


class Strategy(Protocol):
    """A balancing strategy; one object serves one agent."""

    def select(self, instances: Sequence[Instance]) -> Instance:
        """Choose one of the instances; there is at least one."""
        ...


class SmoothWeighted:
    """By weight, spread evenly: weights 5, 1, 1 give a a b a c a a (nginx's algorithm).

    Each choice adds every instance its weight; the richest is chosen and pays the total.
    """

    def select(self, instances: Sequence[Instance]) -> Instance:
        """The instance with the highest running score."""
        return self._richest(instances, [each.pull for each in instances])

    @staticmethod
    def _richest(instances: Sequence[Instance], weights: Sequence[float]) -> Instance:
        for each, weight in zip(instances, weights, strict=True):
            each.credit += weight
        chosen = max(instances, key=lambda each: each.credit)
        chosen.credit -= sum(weights)
        return chosen


class RoundRobin(SmoothWeighted):
    """Each instance in its turn, whatever its weight."""

    def select(self, instances: Sequence[Instance]) -> Instance:
        """The next instance."""
        return self._richest(instances, [each.share for each in instances])


class LeastConnections:
    """The instance with the fewest calls in flight for its weight; in turn among equals."""

    def __init__(self) -> None:
        self._turn = RoundRobin()

    def select(self, instances: Sequence[Instance]) -> Instance:
        """The least loaded instance."""
        least = min(each.active / each.pull for each in instances)
        return self._turn.select([each for each in instances if each.active / each.pull == least])


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
                each.latency * (each.active + 1) / each.pull,
                each.active / each.pull,
            ),
        )


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "weighted": SmoothWeighted,
    "latency": LeastLatency,
}
"""By their names in ``load_balancing.strategy``."""
