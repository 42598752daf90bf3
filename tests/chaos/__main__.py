"""The command line of the fault suite."""

import asyncio
import contextlib
import json
import logging
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.live import Live

from tests.chaos import report
from tests.chaos.runner import Run, Wish
from tests.chaos.stage import brokers

LINE_SECONDS, TABLE_SECONDS = 15.0, 1.0


@click.command()
@click.option("--seed", type=int, help="Of the chance; without it a new one, which is printed.")
@click.option(
    "--seconds",
    type=click.FloatRange(5),
    default=600,
    show_default=True,
    help="Of load and faults.",
)
@click.option("--clients", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option(
    "--broker",
    type=click.Choice(["rabbitmq", "redis", "none"]),
    help="[default: the first that is installed]",
)
@click.option("--short", is_flag=True, help="Only the faults that a minute has room for.")
@click.option("--keep", is_flag=True, help="Keep the logs and data even if all went well.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def command(
    seed: int | None,
    seconds: float,
    clients: int,
    broker: str | None,
    short: bool,  # noqa: FBT001 - flags of the command line
    keep: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Run a random program against the whole product while its parts fail, and check promises.

    Exit code 1 says that a promise was not kept: the report says which, where, and how to repeat
    the run.

    \b
    Examples:
      python -m tests.chaos
      python -m tests.chaos --seed 7 --seconds 120 --broker redis
      python -m tests.chaos --json > report.json
    """
    wish = Wish(
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
        seconds=seconds,
        clients=clients,
        broker=broker or brokers()[0],
        whole=not short,
    )
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    said = Console(stderr=True, highlight=False)
    said.print(f"Seed {wish.seed}, broker {wish.broker}, files in {directory}")
    # A broker that is away is what is wanted.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    run = Run(wish)
    if number := asyncio.run(_carry_out(run, directory, said)):
        _told_to_end(run, number, directory, said, keep=keep)
    if as_json:
        click.echo(json.dumps(report.document(run), indent=2))
    else:
        report.show(run, Console(highlight=False))
    if report.violations(run):
        said.print(f"The logs are in {directory}")
        sys.exit(1)
    if not keep:
        shutil.rmtree(directory, ignore_errors=True)


def _told_to_end(
    run: Run, number: signal.Signals, directory: Path, said: Console, *, keep: bool
) -> NoReturn:
    """Say how far it came, and exit as one who was told to end does."""
    left = keep or bool(run.ledger.violations)
    where = f"; the logs are in {directory}" if left else ""
    wish = run.wish
    said.print(
        f"Ended by {number.name} before all was checked (phase: {run.phase}). The same run again: "
        f"python -m tests.chaos --seed {wish.seed} --seconds {wish.seconds:g} "
        f"--broker {wish.broker}{where}",
        soft_wrap=True,
    )
    if not left:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(128 + number)


async def _carry_out(run: Run, directory: Path, said: Console) -> signal.Signals | None:
    """Do it all; the signal that ended it early. All that was started is ended, however it is."""
    began, told = time.monotonic(), list[signal.Signals]()
    work = asyncio.create_task(run.carry_out(directory))

    def end(number: signal.Signals) -> None:
        # Once: another one must not break off what ends the processes.
        if not told:
            told.append(number)
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    showing = asyncio.create_task(_show(run, began, said))
    try:
        await work
    except asyncio.CancelledError:
        if not told:
            raise
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing
    return told[0] if told else None


async def _show(run: Run, began: float, said: Console) -> None:
    """A table on a terminal, else a line now and then."""
    if not said.is_terminal:
        told = 0
        while True:
            said.print(report.line(run, time.monotonic() - began))
            for each in run.ledger.violations[told:]:
                said.print(f"VIOLATED {each.invariant}: {each.what}", markup=False)
            told = len(run.ledger.violations)
            await asyncio.sleep(LINE_SECONDS)
    with Live(console=said, auto_refresh=False) as live:
        while True:
            live.update(report.progress(run, time.monotonic() - began), refresh=True)
            await asyncio.sleep(TABLE_SECONDS)


if __name__ == "__main__":
    command()
