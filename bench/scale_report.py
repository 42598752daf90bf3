"""The tables of the scaling measurements, for people."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.crowd import Crowd
from bench.loads import Run
from bench.topology import KINDS
from bench.waiting import Waiting

_WIDTH = 150


def show(found: Mapping[str, Any]) -> None:
    """All tables of the parts that were measured."""
    tables: dict[str, Callable[[Any], Table]] = {
        "processes": _processes,
        "checks": _checks,
        "tasks": _tasks,
        "waiting": _waiting,
        "agents": _agents,
    }
    for part, table in tables.items():
        if part in found:
            Console(width=_WIDTH).print(table(found[part]))


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(f"{each:.4g}" if isinstance(each, float) else str(each) for each in row))
    return table


def _cost_headings() -> list[str]:
    return [f"{kind} ms" for kind in KINDS]


def _cost_cells(costs: Mapping[str, float]) -> list[float]:
    return [1000 * costs[kind] for kind in KINDS]


def _processes(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = ("load", "topology", "per_second", "least", "most", "cores", "busy")
    return _table(
        "Workers x APIs; CPU milliseconds are of one task",
        ["", "processes", "tasks/s", "least", "most", "cores", "busy share", *_cost_headings()],
        [[*(row[name] for name in names), *_cost_cells(row["costs"])] for row in rows],
    )


def _checks(checks: Sequence[Any]) -> Table:
    return _table(
        "Predicted from the costs of one worker and one API",
        ["", "processes", "predicted", "measured", "measured/predicted", "bound by"],
        [
            [
                *(each.load, each.topology, each.predicted, each.measured),
                each.measured / each.predicted,
                each.bound_by,
            ]
            for each in checks
        ],
    )


def _tasks(runs: Sequence[Run]) -> Table:
    return _table(
        "Task after task on one engine",
        ["", "tasks", "seconds", "tasks/s", "cores", *_cost_headings()],
        [
            [
                *(one.load, one.tasks, one.seconds, one.per_second, one.cores),
                *_cost_cells(one.costs),
            ]
            for one in runs
        ],
    )


def _waiting(rows: Sequence[Waiting]) -> Table:
    times = ("start", "submit", "dispatch", "health")
    return _table(
        "A new task while others wait",
        [
            "waiting",
            *(f"{name} ms" for name in times),
            *(f"{kind} CPU ms" for kind in KINDS),
            *(f"{kind} MB" for kind in KINDS),
        ],
        [
            [
                row.waiting,
                *(row.milliseconds[name] for name in times),
                *(row.cpu_ms[kind] for kind in KINDS),
                *(row.memory[kind] for kind in KINDS),
            ]
            for row in rows
        ],
    )


def _agents(rows: Sequence[Crowd]) -> Table:
    return _table(
        "Many agents",
        [
            *("agents", "start s", "further worker s"),
            *(f"{kind} idle cores" for kind in KINDS),
            *(f"{kind} MB" for kind in KINDS),
            *(f"{one.load}/s" for one in rows[0].runs),
            *(f"{one.load} CPU ms" for one in rows[0].runs),
        ],
        [
            [
                *(row.agents, row.start_seconds, row.worker_seconds),
                *(row.idle[kind] for kind in KINDS),
                *(row.memory[kind] for kind in KINDS),
                *(one.per_second for one in row.runs),
                *(1000 * sum(one.costs.values()) for one in row.runs),
            ]
            for row in rows
        ],
    )
