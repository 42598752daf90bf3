"""How many tasks a second to expect, from what one task costs: the least of what bounds them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

ONE_CORE = ("api", "worker", "agent", "client")
"""Kinds of which a process computes on one core at a time, being Python; the engine takes all."""

Costs = Mapping[str, float]
"""CPU seconds of one task by kind of process."""


@dataclass(frozen=True)
class Resources:
    """What there is to do tasks with.

    Args:
        cores: that nobody else uses.
        processes: how many there are of a kind, by default one.
        calls_at_once: how many calls the workers make together at most.
        call_seconds: how long the agent takes to answer.
    """

    cores: float
    processes: Mapping[str, int]
    calls_at_once: float = math.inf
    call_seconds: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """Tasks a second, and the resource that allows no more."""

    per_second: float
    bound_by: str


def predict(costs: Costs, resources: Resources) -> Prediction:
    """What to expect of these resources when a task costs so much."""
    bounds = {"cores": _rate(resources.cores, sum(costs.values()))}
    for kind in ONE_CORE:
        bounds[kind] = _rate(resources.processes.get(kind, 1), costs.get(kind, 0.0))
    bounds["connections"] = _rate(resources.calls_at_once, resources.call_seconds)
    bound_by = min(bounds, key=bounds.__getitem__)
    return Prediction(bounds[bound_by], bound_by)


def mixed(shares: Mapping[str, float], costs: Mapping[str, Costs]) -> dict[str, float]:
    """The cost of an average task when tasks of several loads come in these shares, 1 in all."""
    kinds = {kind for load in shares for kind in costs[load]}
    return {
        kind: sum(share * costs[load].get(kind, 0.0) for load, share in shares.items())
        for kind in sorted(kinds)
    }


def grouped(
    small: tuple[float, Costs], large: tuple[float, Costs], size: float
) -> dict[str, float]:
    """The cost of a task in groups of a size, from those in groups of two other sizes.

    A group costs something however many tasks are in it, and each task costs something besides.
    """
    (few, dear), (many, cheap) = small, large
    of_group = {kind: (dear[kind] - cheap[kind]) / (1 / few - 1 / many) for kind in cheap}
    return {kind: cheap[kind] + of_group[kind] * (1 / size - 1 / many) for kind in cheap}


def _rate(amount: float, seconds_each: float) -> float:
    return amount / seconds_each if seconds_each else math.inf
