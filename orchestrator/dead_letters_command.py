"""``orchestrator dead-letters``: tasks that failed for good, by the API."""

import json
import time
from collections.abc import Callable
from typing import Any

import click

from orchestrator.api_command import Api, api_command, goes_on, is_for_subcommand, user
from orchestrator.client import OrchestratorClient
from orchestrator.dead_letters import (
    BulkAction,
    BulkState,
    BulkStatus,
    DeadLetterDetail,
    DeadLetterItem,
    Resolution,
)
from orchestrator.display import Column, print_fields, print_json, print_rows, tell
from orchestrator.status_command import print_attempts
from orchestrator.tasks_command import Moment
from orchestrator.values import MAX_PRIORITY, MIN_PRIORITY

_LOOK_SECONDS = 0.5
_ENDS = {BulkAction.REDRIVE: Resolution.REDRIVEN, BulkAction.DISCARD: Resolution.DISCARDED}

_LETTERS = (
    Column("task", 36, "whole"),
    Column("failed at", 19),
    Column("agent", 24),
    Column("pattern", 20),
    Column("tenant", 10),
    Column("runs", 4),
    Column("error type", 16),
    Column("error", fit="fold"),
)
_FILTERS = (
    click.option("--agent", help="Only those of this agent."),
    click.option("--pattern", help="Only those of this pattern."),
    click.option("--tenant", help="Only those of this tenant."),
    click.option("--priority", type=click.IntRange(MIN_PRIORITY, MAX_PRIORITY)),
    click.option("--batch", help="Only items of this batch."),
    click.option("--error-type", help="Only those that failed of this, such as AgentFailed."),
    click.option(
        "--since", type=Moment(), help="Failed at or after, such as 2026-01-15T10:30:00Z."
    ),
    click.option("--until", type=Moment(), help="Failed before."),
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
    ):
        command = option(command)
    return _filter_options(command)


@click.group(name="dead-letters", invoke_without_command=True)
@_filter_options
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@click.option("--cursor", help="Where the page before ended.")
@click.pass_context
@api_command
def command(context: click.Context, api: Api, as_json: bool, **fields: Any) -> None:  # noqa: FBT001 - click's way
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
    if is_for_subcommand(context):
        return
    with api.client() as client:
        page = client.dead_letter_page(**fields)
    if as_json:
        print_json(page)
        return
    print_rows(_LETTERS, map(_row, page.dead_letters))
    if page.next_cursor:
        tell(f"There are more: --cursor {page.next_cursor}")


@command.command()
@click.argument("task_id")
@api_command
def show(api: Api, task_id: str, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Show one dead letter: the request, the attempts, and the runs before.

    \b
    Examples:
      orchestrator dead-letters show 550e8400-e29b-41d4-a716-446655440000
    """
    with api.client() as client:
        detail = client.dead_letter(task_id)
    if as_json:
        print_json(detail)
    else:
        _show(detail)


@command.command()
@_bulk_options
@api_command
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
@api_command
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
    api: Api,
    task_id: str | None,
    everything: bool,
    rate: float | None,
    dry_run: bool,
    reason: str,
    as_json: bool,
    **fields: Any,
) -> None:
    filters = {name: value for name, value in fields.items() if value is not None}
    if sum((task_id is not None, everything, bool(filters))) != 1:
        raise click.UsageError("Name one of: a task, what to select such as --agent, or --all.")
    with api.client() as client:
        if task_id is not None:
            _resolve_one(client, action, task_id, dry_run=dry_run, reason=reason, as_json=as_json)
            return
        matched = client.count_dead_letters(everything=everything, **filters)
        if dry_run or not matched.matched:
            _tell_match(matched.matched, as_json=as_json)
            return
        status = client.resolve_many(
            action, everything=everything, rate=rate, reason=reason, by=user(), **filters
        )
    _follow(api, status, as_json=as_json)


def _resolve_one(
    client: OrchestratorClient,
    action: BulkAction,
    task_id: str,
    *,
    dry_run: bool,
    reason: str,
    as_json: bool,
) -> None:
    if dry_run:
        client.dead_letter(task_id)
        _tell_match(1, as_json=as_json)
        return
    order = client.redrive if action is BulkAction.REDRIVE else client.discard
    answer = order(task_id, reason=reason, by=user())
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Task {task_id} is {_ENDS[action]}.")


def _tell_match(matched: int, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"matched": matched, "dry_run": True}))
    else:
        click.echo(f"{_letters(matched)} {'matches' if matched == 1 else 'match'}.")


def _follow(api: Api, status: BulkStatus, *, as_json: bool) -> None:
    """Wait for its end, and say what came of it."""
    path = f"/dead-letters/redrives/{status.redrive_id}"
    with goes_on(f"It goes on; look at it with GET {path}, stop it with POST {path}/cancel"):
        tell(f"{_letters(status.matched)} to be {_ENDS[status.action]}")
        with api.client(patient=True) as client:
            while status.state is BulkState.RUNNING:
                time.sleep(_LOOK_SECONDS)
                status = client.redrive_status(status.redrive_id)
    if as_json:
        print_json(status)
    else:
        click.echo(_tally(status))


def _tally(status: BulkStatus) -> str:
    line = f"{status.done} done, {status.failed} refused, {status.skipped} skipped."
    return f"{line} The last refusal: {status.last_failure}" if status.last_failure else line


def _letters(count: int) -> str:
    return f"{count} dead letter" + ("" if count == 1 else "s")


def _row(letter: DeadLetterItem) -> tuple[Any, ...]:
    return (
        letter.task_id,
        letter.failed_at,
        letter.agent,
        letter.pattern,
        letter.tenant,
        letter.runs,
        letter.error_type,
        letter.error,
    )


def _show(detail: DeadLetterDetail) -> None:
    apart = {"attempt_history", "earlier_runs"}
    print_fields(detail.model_dump(mode="json", exclude=apart))
    for run in detail.earlier_runs:
        error = f"{run.error_type}, {run.error}"
        print_fields({"earlier run": f"{run.attempts} attempts until {run.ended_at}: {error}"})
    if detail.attempt_history:
        print_attempts(detail.attempt_history)
