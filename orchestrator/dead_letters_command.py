"""``orchestrator dead-letters``: tasks that failed for good, straight from the engine."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text
from temporalio.client import Client

from orchestrator import engine_command
from orchestrator.cli import config_option, plain_errors
from orchestrator.config import Settings
from orchestrator.dead_letters import (
    BulkAction,
    BulkOrder,
    BulkState,
    BulkStatus,
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLetterOrder,
    DeadLetterPage,
    Resolution,
    bulk_id,
)
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.listing import InvalidCursor
from orchestrator.engine.redrives import Redrives
from orchestrator.engine_command import Result, console, json_option, print_json, user, valid
from orchestrator.errors import StartupError

_WIDTH = 200
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 30.0
"""How much longer than its rate needs an order about many is watched."""
_ENDS = {BulkAction.REDRIVE: Resolution.REDRIVEN, BulkAction.DISCARD: Resolution.DISCARDED}

_FILTERS = (
    click.option("--agent", help="Only those of this agent."),
    click.option("--pattern", help="Only those of this pattern."),
    click.option("--tenant", help="Only those of this tenant."),
    click.option("--priority", type=click.IntRange(1, 5), help="Only those of this priority."),
    click.option("--batch", help="Only items of this batch."),
    click.option("--error-type", help="Only those that failed of this, such as AgentFailed."),
    click.option("--since", help="Failed at or after, such as 2026-01-15T10:30:00Z."),
    click.option("--until", help="Failed before."),
)


def _filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def _bulk_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands take that resolve dead letters."""
    for option in (
        click.argument("task_id", required=False),
        click.option("--all", "everything", is_flag=True, help="Every dead letter."),
        click.option(
            "--rate",
            type=click.FloatRange(0, 1000, min_open=True),
            help="So many a second at most. [default: dead_letters.redrive_rate]",
        ),
        click.option("--dry-run", is_flag=True, help="Only count them."),
        click.option("--reason", default="", help="Kept with the dead letter."),
        config_option,
    ):
        command = option(command)
    return _filter_options(command)


@dataclass(frozen=True)
class _Engine:
    """What the commands work with."""

    settings: Settings
    dead_letters: DeadLetters
    redrives: Redrives


@click.group(name="dead-letters", invoke_without_command=True)
@_filter_options
@config_option
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--cursor", help="Where the page before ended.")
@json_option("As GET /dead-letters answers.")
@click.pass_context
@plain_errors
def command(
    context: click.Context,
    config_path: Path | None,
    limit: int,
    cursor: str | None,
    as_json: bool,  # noqa: FBT001 - click's way
    **fields: Any,
) -> None:
    """List the tasks that failed for good, run them again, or give them up.

    \b
    Examples:
      orchestrator dead-letters
      orchestrator dead-letters --agent translation_agent --since 2026-01-15T10:30:00Z
      orchestrator dead-letters show TASK_ID
      orchestrator dead-letters redrive TASK_ID --reason "the disk was replaced"
      orchestrator dead-letters redrive --agent translation_agent --rate 5 --dry-run
      orchestrator dead-letters discard --error-type AgentTimedOut
    """
    # Passed over, the options would make the order larger than it was meant.
    if engine_command.is_for_subcommand(context):
        return
    chosen = _filter(fields)

    async def look(engine: _Engine) -> DeadLetterPage:
        return await engine.dead_letters.page(chosen, limit, cursor)

    page = _run(config_path, look)
    if as_json:
        print_json(page)
        return
    console(_WIDTH).print(_table(page))
    if page.next_cursor:
        click.echo(f"There are more: --cursor {page.next_cursor}")


@command.command()
@click.argument("task_id")
@config_option
@json_option("As GET /dead-letters/{task_id} answers.")
@plain_errors
def show(task_id: str, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Show one dead letter: the request, the attempts, and the runs before.

    \b
    Examples:
      orchestrator dead-letters show 550e8400-e29b-41d4-a716-446655440000
    """

    async def look(engine: _Engine) -> DeadLetterDetail:
        return await engine.dead_letters.get(task_id)

    detail = _run(config_path, look)
    if as_json:
        print_json(detail)
        return
    _show(detail)


@command.command()
@_bulk_options
@plain_errors
def redrive(**options: Any) -> None:
    """Run a task again under its id, or all that a filter selects.

    \b
    Examples:
      orchestrator dead-letters redrive TASK_ID
      orchestrator dead-letters redrive --agent translation_agent --rate 5
      orchestrator dead-letters redrive --all --dry-run
    """
    _resolve(BulkAction.REDRIVE, **options)


@command.command()
@_bulk_options
@plain_errors
def discard(**options: Any) -> None:
    """Give a task up, or all that a filter selects; they stay failed.

    \b
    Examples:
      orchestrator dead-letters discard TASK_ID --reason duplicate
      orchestrator dead-letters discard --tenant acme --dry-run
    """
    _resolve(BulkAction.DISCARD, **options)


def _resolve(
    action: BulkAction,
    *,
    task_id: str | None,
    everything: bool,
    rate: float | None,
    dry_run: bool,
    reason: str,
    config_path: Path | None,
    **fields: Any,
) -> None:
    chosen = _filter(fields)
    if sum((task_id is not None, everything, not chosen.selects_all)) != 1:
        raise click.UsageError("Name one of: a task, what to select such as --agent, or --all.")
    words = valid(DeadLetterOrder, {"reason": reason, "by": user()})

    async def one(engine: _Engine, task_id: str) -> None:
        if dry_run:
            await engine.dead_letters.get(task_id)
            click.echo("1 dead letter matches.")
            return
        resolved = await engine.dead_letters.resolve(action, task_id, words)
        click.echo(f"Task {task_id} is {resolved.resolution}.")

    async def many(engine: _Engine) -> None:
        matched = await engine.dead_letters.count(chosen)
        if dry_run or not matched:
            click.echo(f"{_letters(matched)} {'matches' if matched == 1 else 'match'}.")
            return
        pace = rate or engine.settings.dead_letters.redrive_rate
        redrive_id = str(uuid.uuid4())
        await engine.redrives.start(
            redrive_id,
            BulkOrder(
                action=action,
                filter=chosen,
                rate=pace,
                reason=words.reason,
                by=words.by,
                matched=matched,
            ),
        )
        click.echo(
            f"{_letters(matched)} to be {_ENDS[action]}, {pace:g} a second; stopping this command "
            f"does not stop it, cancelling workflow {bulk_id(redrive_id)} does."
        )
        await _watch(engine.redrives, redrive_id, matched / pace + _PATIENCE_SECONDS)

    _run(config_path, (lambda engine: one(engine, task_id)) if task_id else many)


async def _watch(redrives: Redrives, redrive_id: str, seconds: float) -> None:
    """Wait for its end, and say what came of it."""
    until = time.monotonic() + seconds
    status = await redrives.status(redrive_id)
    while status.state is BulkState.RUNNING and time.monotonic() < until:
        await asyncio.sleep(_LOOK_SECONDS)
        status = await redrives.status(redrive_id)
    click.echo(_tally(status))
    if status.state is BulkState.RUNNING:
        click.echo(f"It is still under way; look at workflow {bulk_id(redrive_id)}.")


def _tally(status: BulkStatus) -> str:
    line = f"{status.done} done, {status.failed} refused, {status.skipped} skipped."
    return f"{line} The last refusal: {status.last_failure}" if status.last_failure else line


def _letters(count: int) -> str:
    return f"{count} dead letter" + ("" if count == 1 else "s")


def _filter(fields: dict[str, Any]) -> DeadLetterFilter:
    return valid(DeadLetterFilter, fields, "--")


def _run(
    config_path: Path | None, work: Callable[[_Engine], Coroutine[Any, Any, Result]]
) -> Result:
    async def connected(settings: Settings, client: Client) -> Result:
        timeout = settings.temporal.rpc_timeout
        engine = _Engine(settings, DeadLetters(client, timeout), Redrives(client, timeout))
        try:
            return await work(engine)
        except InvalidCursor:
            raise StartupError("--cursor: not one that this command gave") from None

    return engine_command.run(config_path, "dead-letters", connected)


def _table(page: DeadLetterPage) -> Table:
    table = Table(title=f"{_letters(len(page.dead_letters))}, newest first")
    table.add_column("task", no_wrap=True)
    for heading in ("agent", "pattern", "tenant", "failed at", "runs", "error type", "error"):
        table.add_column(heading, overflow="fold")
    for each in page.dead_letters:
        cells = (
            each.task_id,
            each.agent or "",
            each.pattern or "",
            each.tenant or "",
            f"{each.failed_at:%Y-%m-%d %H:%M:%S}",
            str(each.runs),
            each.error_type or "",
            each.error,
        )
        # Texts, so that brackets in an error are not read as markup.
        table.add_row(*map(Text, cells))
    return table


def _show(detail: DeadLetterDetail) -> None:
    out = console(_WIDTH)
    for name, value in detail.model_dump(mode="json", exclude_none=True).items():
        if name not in {"request", "attempt_history", "earlier_runs"}:
            out.print(f"{name:12} {value}", soft_wrap=True)
    out.print(f"{'request':12} {json.dumps(detail.request, ensure_ascii=False)}", soft_wrap=True)
    table = Table(title="Attempts")
    for heading in ("attempt", "at", "agent", "instance", "outcome", "status", "seconds"):
        table.add_column(heading, overflow="fold")
    for each in detail.attempt_history:
        at = f"{each.at:%Y-%m-%d %H:%M:%S}" if each.at else ""
        cells = (each.attempt, at, each.agent, each.instance, each.outcome, each.status)
        texts = ["" if cell is None else str(cell) for cell in cells]
        table.add_row(*map(Text, texts), Text(f"{each.seconds:g}"))
    out.print(table)
    for run in detail.earlier_runs:
        out.print(
            f"Earlier run, ended {run.ended_at:%Y-%m-%d %H:%M:%S} after {run.attempts} attempts: "
            f"{run.error_type}, {run.error}",
            soft_wrap=True,
        )
