"""What a run comes to: tables for people, one object for programs."""

from typing import Any

from rich.console import Console, Group
from rich.table import Table

from tests.chaos.faults import FAULTS
from tests.chaos.invariants import all_violations
from tests.chaos.ledger import FINAL
from tests.chaos.replies import ROWS
from tests.chaos.runner import Run

MEGABYTE = 1_000_000


def document(run: Run) -> dict[str, Any]:
    """The report as data."""
    ledger, wish = run.ledger, run.wish
    return {
        "seed": wish.seed,
        "broker": wish.broker,
        "held": not violations(run),
        "violations": violations(run),
        "faults": faults(run),
        "operations": dict(ledger.operations.most_common()),
        "answers": dict(ledger.answers.most_common()),
        "tasks": len(ledger.by_id),
        "ends": ends(run),
        "checks": [
            {
                "invariant": each.invariant,
                "what": each.what,
                "checked": each.checked,
                "violations": len(each.violations),
            }
            for each in run.checks
        ],
        "seconds": {name: round(value, 1) for name, value in run.seconds.items()},
        "slowest_answer_seconds": round(ledger.slowest_answer, 2),
        "most_memory_mb": {name: used // MEGABYTE for name, used in run.most_memory.items()},
        "repeat": f"make chaos SEED={wish.seed} SECONDS={wish.seconds:g}",
    }


def violations(run: Run) -> list[dict[str, Any]]:
    """All that was not kept."""
    return all_violations(run.ledger, run.checks)


def faults(run: Run) -> list[dict[str, Any]]:
    """How often each fault fired, and why one did not; those that agents play are counted too."""
    wanted = [each for each in FAULTS if run.wish.whole or each.short]
    by_hand = [
        {
            "row": each.row,
            "name": each.name,
            "fired": run.fired[each],
            **(
                {"not_fired": run.not_fired[each]}
                if not run.fired[each] and each in run.not_fired
                else {}
            ),
        }
        for each in wanted
    ]
    kinds = run.stage.records.kinds if run.stage else {}
    played = [
        {"row": str(row), "name": f"agent answers: {kind}", "fired": kinds.get(kind, 0)}
        for kind, row in ROWS.items()
    ]
    operations = run.ledger.operations
    asked = [
        {"row": row, "name": name, "fired": operations[name]}
        for row, name in (
            ("15", "internal receiver"),
            ("16", "same key at once"),
            ("20", "poison message"),
            ("21", "large task"),
            ("25", "cancel a call in flight"),
        )
    ]
    for each in played:
        if each["row"] == "29":
            each["fired"] = run.slain
            each["name"] = "a call kills its caller"
    return sorted(by_hand + played + asked, key=lambda each: (len(each["row"]), each["row"]))


def ends(run: Run) -> dict[str, int]:
    """How many tasks are how."""
    finals = [(each.final or {}).get("status", "open") for each in run.ledger.by_id.values()]
    return {name: finals.count(name) for name in (*sorted(FINAL), "open")}


def progress(run: Run, elapsed: float) -> Table:
    """The table that is shown while it runs."""
    table = Table(title=f"seed {run.wish.seed}: {run.phase}", show_header=False)
    calls = run.stage.records.in_flight() if run.stage else 0
    table.add_row("seconds", f"{elapsed:.0f} of {run.wish.seconds:g} and the rest")
    table.add_row("tasks", ", ".join(f"{value} {name}" for name, value in ends(run).items()))
    table.add_row("calls", f"{calls} in flight")
    table.add_row(
        "requests", f"{run.ledger.answers.total()}, {run.ledger.answers['none']} not answered"
    )
    table.add_row("faults", f"{run.fired.total()}, the last kinds: {_latest(run)}")
    table.add_row("violations", str(len(run.ledger.violations)))
    return table


def _latest(run: Run) -> str:
    return ", ".join(f"{fault.name} ({count})" for fault, count in list(run.fired.items())[-3:])


def line(run: Run, elapsed: float) -> str:
    """The same where there is no terminal."""
    found = ends(run)
    return (
        f"{elapsed:4.0f} s  {run.phase}: {sum(found.values())} tasks, {found['open']} open, "
        f"{run.fired.total()} faults, {len(run.ledger.violations)} violations"
    )


def show(run: Run, console: Console) -> None:
    """Print the report for people."""
    said = document(run)
    console.print(Group(_faults(said), _checks(said)))
    tasks = ", ".join(f"{value} {name}" for name, value in said["ends"].items())
    console.print(f"{said['tasks']} tasks: {tasks}. Answers: {said['answers']}.")
    console.print(
        f"Seconds: {said['seconds']}; the slowest answer: {said['slowest_answer_seconds']}."
    )
    for each in said["violations"]:
        console.print(f"VIOLATED {each['invariant']}: {each['what']}", style="red", markup=False)
    verdict = "All invariants held" if said["held"] else "Invariants were violated"
    console.print(f"{verdict}; seed {said['seed']}. Again: {said['repeat']}", style="bold")


def _faults(said: dict[str, Any]) -> Table:
    table = Table("row", "fault", "fired", title="Faults")
    for each in said["faults"]:
        why = f" ({each['not_fired']})" if "not_fired" in each else ""
        table.add_row(each["row"], each["name"] + why, str(each["fired"]))
    return table


def _checks(said: dict[str, Any]) -> Table:
    table = Table("", "invariant", "checked", "violated", title="Invariants")
    for each in said["checks"]:
        table.add_row(*(str(each[name]) for name in ("invariant", "what", "checked", "violations")))
    return table
