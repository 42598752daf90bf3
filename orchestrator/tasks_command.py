"""``orchestrator tasks``: find tasks."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from orchestrator.api_command import Api, api_command
from orchestrator.display import (
    Column,
    print_json,
    print_line,
    print_rows,
    tell,
)
from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus
from orchestrator.values import MAX_PRIORITY, MIN_PRIORITY

MAX_PAGE = 200
_COLUMNS = (
    Column("task", 36, "whole"),
    Column("status", 9, "whole"),
    Column("created at", 19),
    Column("agent", 24),
    Column("pattern", 20),
    Column("tenant", 10),
    Column("prio", 4),
    Column("error"),
)


class Moment(click.ParamType[datetime]):
    """A time as ISO 8601 has it; without a zone it is a local one."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The time."""
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is not a time such as 2026-01-15T10:30:00Z.", param, ctx)


@click.command()
@click.option("--agent", help="Only those of this agent.")
@click.option("--pattern", help="Only those of this pattern.")
@click.option("--status", type=click.Choice([each.value for each in TaskState]))
@click.option("--tenant", help="Only those on this one's behalf.")
@click.option("--priority", type=click.IntRange(MIN_PRIORITY, MAX_PRIORITY))
@click.option("--batch", help="Only the items of this batch.")
@click.option(
    "--since", type=Moment(), help="Only those accepted since, such as 2026-01-15T10:30Z."
)
@click.option("--limit", type=click.IntRange(1, MAX_PAGE), default=50, show_default=True)
@click.option("--cursor", help="Where the page before ended.")
@click.option("--all", "everything", is_flag=True, help="All pages; with --json a task a line.")
@api_command
def command(
    api: Api,
    limit: int,
    cursor: str | None,
    everything: bool,  # noqa: FBT001 - click's way
    as_json: bool,  # noqa: FBT001 - click's way
    **filters: Any,
) -> None:
    """List tasks, the newest first.

    \b
    Examples:
      orchestrator tasks
      orchestrator tasks --status failed --agent translation_agent --since 2026-01-15T10:30Z
      orchestrator tasks --all --json | jq -r .task_id
    """
    with api.client() as client:
        if everything:
            _all(client.tasks(**filters), as_json=as_json)
            return
        page = client.task_page(**filters, limit=limit, cursor=cursor)
    if as_json:
        print_json(page)
        return
    print_rows(_COLUMNS, map(_row, page.tasks))
    if page.next_cursor:
        tell(f"There are more: --cursor {page.next_cursor}, or --all")


def _all(tasks: Iterable[TaskStatus], *, as_json: bool) -> None:
    if as_json:
        for each in tasks:
            print_line(each)
        return
    print_rows(_COLUMNS, map(_row, tasks))


def _row(task: TaskStatus) -> tuple[Any, ...]:
    error = task.error or task.last_error
    if error is None and task.blocked_by:
        error = f"waits for {task.blocked_by}"
    return (
        task.task_id,
        task.status.value,
        task.created_at,
        task.agent,
        task.pattern,
        task.tenant,
        task.priority,
        error,
    )
