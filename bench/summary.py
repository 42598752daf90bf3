"""What was measured, in figures: medians, percentiles, costs of a task, ratios with their goals."""

import math
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.contest import PEER_MANY, PEER_SINGLES

Rounds = Mapping[str, Sequence[Mapping[str, Any]]]
Rows = Mapping[str, Mapping[str, Any]]

ONE_BY_ONE = "dispatch p50, one at a time"
ALL_AT_ONCE = "dispatch mean, under load"
LATENCIES = ("submit_ms", "dispatch_ms", "end_ms")
_PERCENTILES = (50, 95, 99)
_MB = 1e6


@dataclass(frozen=True)
class Goal:
    """A ratio, and what it is to be.

    Args:
        over: the mode whose figure is divided.
        under: the mode by whose figure it is divided; None for the best peer.
        figure: what is divided, by its name in FIGURES.
        least: what the ratio is to be at least; None without such a goal.
        most: what it is to be at most.
    """

    over: str
    under: str | None
    figure: str = "tasks/s"
    least: float | None = None
    most: float | None = None

    def ratio(self, rows: Rows) -> dict[str, Any] | None:
        """The ratio; None where one of the two was not measured."""
        under = self.under or best_peer(rows)
        figure = FIGURES[self.figure]
        over_figure, under_figure = (figure(rows.get(name or "")) for name in (self.over, under))
        if over_figure is None or under_figure is None:
            return None
        name = under if self.under else f"best peer ({under})"
        return {
            "ratio": round(over_figure / under_figure, 2),
            "what": f"{self.figure}: {self.over} / {name}",
            "goal": _goal(self.least, self.most),
        }


GOALS = (
    Goal("queued", "textbook", least=2.5),
    Goal("queued", "textbook in memory"),
    Goal("queued", "textbook", ONE_BY_ONE, most=0.25),
    Goal("queued", "textbook", ALL_AT_ONCE, most=0.25),
    Goal("inline", "floor eager", least=0.8),
    Goal("inline", "floor light", least=0.8),
    Goal("coalesced", "queued", least=15),
    Goal("coalesced", None, least=1.5),
    Goal("batch", None, least=4),
    Goal("batch by two workers", None),
    Goal("batch", PEER_MANY),
)


def _goal(least: float | None, most: float | None) -> str:
    if least is not None:
        return f"at least {least:g}"
    return "" if most is None else f"at most {most:g}"


def _rate(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else float(row["per_second"]["median"])


def _dispatch(row: Mapping[str, Any] | None) -> float | None:
    timed = None if row is None else row["dispatch_ms"]
    return None if timed is None else float(timed["p50"])


def _loaded(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else row["loaded_ms"]


FIGURES: Mapping[str, Callable[[Mapping[str, Any] | None], float | None]] = {
    "tasks/s": _rate,
    ONE_BY_ONE: _dispatch,
    ALL_AT_ONCE: _loaded,
}
"""What ratios are made of, by a mode's row."""


def best_peer(rows: Rows) -> str | None:
    """The peer with the highest rate of single tasks; None where none was measured."""
    rates = {name: rate for name in PEER_SINGLES if (rate := _rate(rows.get(name))) is not None}
    return max(rates, key=lambda name: rates[name], default=None)


def summary(
    rounds: Rounds, skipped: Mapping[str, str], setting: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that is told of a run."""
    rows = {mode: _row(entries) for mode, entries in rounds.items()}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "setting": dict(setting),
        "modes": rows,
        "skipped": dict(skipped),
        "ratios": [ratio for goal in GOALS if (ratio := goal.ratio(rows))],
    }


def machine() -> str:
    """This machine in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    python = f"Python {platform.python_version()}"
    return f"{len(models)} cores of {model}, {platform.system()} {platform.release()}, {python}"


def _row(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rates = [entry["tasks"] / entry["seconds"] for entry in entries]
    return {
        "tasks": entries[0]["tasks"],
        "per_second": {
            "median": round(statistics.median(rates), 1),
            "min": round(min(rates), 1),
            "max": round(max(rates), 1),
        },
        **{name: _percentiles(entries, name) for name in LATENCIES},
        "loaded_ms": _loaded_ms(entries),
        "cpu_ms": _kinds(
            entries, lambda entry, kind: 1000 * entry["cpu"][kind] / entry["tasks"], 3
        ),
        "memory_mb": _kinds(entries, lambda entry, kind: entry["memory"][kind] / _MB, 1),
        "events": _per_task(entries, "events", 3),
        "history_bytes": _per_task(entries, "history_bytes"),
        "database_bytes": _per_task(entries, "database_bytes"),
        "durability": entries[-1]["durability"],
        "versions": entries[-1]["versions"],
    }


def _percentiles(entries: Sequence[Mapping[str, Any]], name: str) -> dict[str, float] | None:
    ordered = sorted(value for entry in entries for value in entry[name])
    if not ordered:
        return None
    return {
        f"p{percent}": round(ordered[math.ceil(percent / 100 * len(ordered)) - 1], 2)
        for percent in _PERCENTILES
    }


def _loaded_ms(entries: Sequence[Mapping[str, Any]]) -> float | None:
    if any(entry["loaded_ms"] is None for entry in entries):
        return None
    return _median(entries, lambda entry: entry["loaded_ms"], 1)


def _kinds(
    entries: Sequence[Mapping[str, Any]],
    figure: Callable[[Mapping[str, Any], str], float],
    digits: int,
) -> dict[str, float]:
    return {
        kind: round(statistics.median(figure(entry, kind) for entry in entries), digits)
        for kind in entries[0]["cpu"]
    }


def _per_task(
    entries: Sequence[Mapping[str, Any]], name: str, digits: int | None = None
) -> float | None:
    if any(entry[name] is None for entry in entries):
        return None
    return _median(entries, lambda entry: entry[name] / entry["tasks"], digits)


def _median(
    entries: Sequence[Mapping[str, Any]],
    figure: Callable[[Mapping[str, Any]], float],
    digits: int | None = None,
) -> float:
    return round(statistics.median(map(figure, entries)), digits)
