"""The figures of a run for people: tables on the terminal, in Markdown, and plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.contest import PEER_MODES
from bench.plots import Bar, bars

FILE = "comparison.md"
_OURS = {"queued", "inline", "coalesced", "batch", "batch by two workers"}


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title)
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a page."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def sheets(told: Mapping[str, Any]) -> list[Sheet]:
    """All tables of a run."""
    modes = told["modes"]
    return [
        _throughput_sheet(modes),
        _latency_sheet(modes),
        _cost_sheet(modes),
        _memory_sheet(modes),
        Sheet(
            "Ratios of the medians",
            ("", "ratio", "goal"),
            [(each["what"], str(each["ratio"]), each["goal"]) for each in told["ratios"]],
        ),
        Sheet(
            "Durability and versions",
            ("", "what is stored", "versions"),
            [(name, row["durability"], row["versions"]) for name, row in modes.items()],
        ),
    ]


def _throughput_sheet(modes: Mapping[str, Any]) -> Sheet:
    return Sheet(
        "Tasks a second, until the last result is stored",
        ("", "tasks", "tasks/s", "least", "most"),
        [
            (name, f"{row['tasks']:,}", *(_number(row["per_second"][k]) for k in _SPREAD))
            for name, row in modes.items()
        ],
    )


def _latency_sheet(modes: Mapping[str, Any]) -> Sheet:
    return Sheet(
        "Milliseconds: p50 / p95 / p99; under load the mean",
        ("", "submit", "dispatch, one at a time", "dispatch, under load", "end to end"),
        [
            (
                name,
                *(_latency(row[k]) for k in ("submit_ms", "dispatch_ms")),
                _number(row["loaded_ms"]),
                _latency(row["end_ms"]),
            )
            for name, row in modes.items()
        ],
    )


def _cost_sheet(modes: Mapping[str, Any]) -> Sheet:
    return Sheet(
        "What a task costs; the driver hands it in",
        ("", "CPU ms", "of which", "events", "history bytes", "database bytes"),
        [
            (
                name,
                f"{sum(row['cpu_ms'].values()):.2f}",
                _kinds(row["cpu_ms"]),
                *(_number(row[key]) for key in ("events", "history_bytes", "database_bytes")),
            )
            for name, row in modes.items()
        ],
    )


def _memory_sheet(modes: Mapping[str, Any]) -> Sheet:
    return Sheet(
        "Memory after the last task, each shared page counted once",
        ("", "MB", "of which"),
        [
            (name, f"{sum(row['memory_mb'].values()):.0f}", _kinds(row["memory_mb"]))
            for name, row in modes.items()
        ],
    )


_SPREAD = ("median", "min", "max")


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"  # noqa: PLR2004 - three digits


def _latency(percentiles: Mapping[str, float] | None) -> str:
    return " / ".join(f"{each:.1f}" for each in percentiles.values()) if percentiles else "n/a"


def _kinds(values: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {value:.3g}" for kind, value in values.items())


def heading(told: Mapping[str, Any]) -> str:
    """Where, when and how it was measured."""
    setting = told["setting"]
    return (
        f"Measured on {told['date']}: {told['machine']}; {setting['rounds']} rounds, "
        f"{setting['connections']} tasks handed in at a time."
    )


def show(told: Mapping[str, Any]) -> None:
    """The tables for people."""
    console = Console()
    console.print(heading(told))
    for sheet in sheets(told):
        console.print(sheet.rich())
    for name, reason in told["skipped"].items():
        console.print(f"{name} was skipped: {reason}", markup=False)


def write(told: Mapping[str, Any], folder: Path) -> None:
    """The tables as one Markdown page, and the plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = {
        "throughput.svg": bars("Tasks a second (logarithmic)", _throughput(told["modes"])),
        "dispatch.svg": bars("Dispatch, p50, ms (logarithmic)", _dispatch(told["modes"])),
        "cpu.svg": bars("CPU of a task, ms (logarithmic)", _cpu(told["modes"])),
    }
    for name, text in plots.items():
        (folder / name).write_text(text)
    skipped = [f"`{name}` was skipped: {why}" for name, why in told["skipped"].items()]
    images = [f"![{name.partition('.')[0]}]({name})" for name in plots]
    parts = [heading(told), *images, *(sheet.markdown() for sheet in sheets(told)), *skipped]
    (folder / FILE).write_text("# The product beside others\n\n" + "\n\n".join(parts) + "\n")


def _throughput(modes: Mapping[str, Any]) -> list[Bar]:
    return [
        Bar(
            name,
            row["per_second"]["median"],
            _colour(name),
            row["per_second"]["min"],
            row["per_second"]["max"],
        )
        for name, row in modes.items()
    ]


def _dispatch(modes: Mapping[str, Any]) -> list[Bar]:
    timed = {name: row["dispatch_ms"] for name, row in modes.items() if row["dispatch_ms"]}
    return [Bar(name, ms["p50"], _colour(name), ms["p50"], ms["p95"]) for name, ms in timed.items()]


def _cpu(modes: Mapping[str, Any]) -> list[Bar]:
    sums = {name: sum(row["cpu_ms"].values()) for name, row in modes.items()}
    return [Bar(name, value, _colour(name)) for name, value in sums.items() if value > 0]


def _colour(name: str) -> str:
    if name in _OURS:
        return "#1f6feb"
    return "#d29922" if name in PEER_MODES else "#8b949e"
