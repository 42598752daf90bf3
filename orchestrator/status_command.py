"""``orchestrator status``: how a task is, now or until its end."""

import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

import click

from orchestrator.api_command import (
    FOREVER,
    Api,
    Id,
    api_command,
    goes_on,
    patience_of,
    wait_option,
)
from orchestrator.client import StillOpen
from orchestrator.display import (
    Column,
    on_terminal,
    print_fields,
    print_json,
    print_line,
    print_rows,
    tell,
)
from orchestrator.exits import Exit
from orchestrator.models import Attempt, TaskState
from orchestrator.statuses import TaskStatus

LOOK_SECONDS = 1.0
_ATTEMPTS = (
    Column("attempt", 7),
    Column("at", 19),
    Column("agent", 24),
    Column("outcome", 18),
    Column("http", 4),
    Column("seconds", 8),
    Column("instance"),
)


@click.command()
@click.argument("task_id", metavar="ID", type=Id())
@click.option("--watch", is_flag=True, help="Write a line at every change, until the end.")
@wait_option("Wait so long for the end.")
@api_command
def command(api: Api, task_id: str, watch: bool, wait: float | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show how the task ID is: what it waits for, its attempts, its result.

    \b
    Examples:
      orchestrator status 550e8400-e29b-41d4-a716-446655440000
      orchestrator status 550e8400-e29b-41d4-a716-446655440000 --watch
      orchestrator status 550e8400-e29b-41d4-a716-446655440000 --wait 60 --json | jq .result
    """
    with api.client() as client:
        status = client.status(task_id)
    if watch:
        status = _watched(api, status, FOREVER if wait is None else wait, as_json=as_json)
        if as_json:
            end(status)
    elif wait is not None and not status.status.is_final:
        status = wait_for(api, task_id, patience_of(wait))
    end_with(status, as_json=as_json)


def wait_for(api: Api, task_id: str, seconds: float | None, announced: str = "") -> TaskStatus:
    """A task's final status; what is ``announced`` is said before.

    Raises:
        ClientError: StillOpen after so many seconds, or what else the API says.
    """
    with goes_on(f"The task goes on; look at it with: orchestrator status {task_id}"):
        if announced:
            tell(announced)
        with api.client(patient=True) as client:
            return client.wait(task_id, timeout=seconds)


def end_with(status: TaskStatus, *, as_json: bool) -> NoReturn:
    """Show a task, and end as it ended."""
    if as_json:
        print_json(status)
    else:
        show(status)
    end(status)


def end(status: TaskStatus) -> NoReturn:
    """End the command as the task ended."""
    sys.stdout.flush()
    bad = status.status in {TaskState.FAILED, TaskState.CANCELLED}
    sys.exit(Exit.FAILED if bad else Exit.OK)


def show(status: TaskStatus) -> None:
    """A task for people."""
    fields = status.model_dump(mode="json")
    attempts = fields.pop("attempt_history", None)
    runs = fields.pop("earlier_runs", None)
    print_fields(fields)
    if runs:
        print_fields({"earlier_runs": len(runs)})
    if attempts and len(attempts) > (0 if on_terminal() else 1):
        print_attempts(status.attempt_history or ())


def print_attempts(attempts: Iterable[Attempt]) -> None:
    """A line for each attempt."""
    print_rows(_ATTEMPTS, map(_attempt, attempts))


def _attempt(each: Any) -> tuple[Any, ...]:
    cells = (each.attempt, each.at, each.agent, each.outcome, each.status)
    return (*cells, f"{each.seconds:.3f}", each.instance)


def _watched(api: Api, status: TaskStatus, seconds: float, *, as_json: bool) -> TaskStatus:
    """Tell every change until the end."""
    until = time.monotonic() + seconds
    _tell_change(status, as_json=as_json)
    with api.client(patient=True) as client:
        while not status.status.is_final:
            if time.monotonic() >= until:
                raise StillOpen(status, seconds)
            asked = time.monotonic()
            new = client.status(status.task_id, wait=LOOK_SECONDS)
            if _seen(new) != _seen(status):
                _tell_change(new, as_json=as_json)
            status = new
            # An API that stops answers at once.
            if not status.status.is_final:
                time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - asked)))
    return status


def _seen(status: TaskStatus) -> tuple[Any, ...]:
    return (
        status.status,
        status.attempts,
        status.agent,
        status.priority,
        status.blocked_by,
        status.last_error,
        status.next_attempt_at,
    )


def _tell_change(status: TaskStatus, *, as_json: bool) -> None:
    if as_json:
        print_line(status)
    else:
        words = [f"{datetime.now().astimezone():%H:%M:%S}", status.status.value.ljust(9)]
        words += [f"attempts {status.attempts}"] if status.attempts else []
        words += [f"waits for {status.blocked_by}"] if status.blocked_by else []
        words += [f"until {status.until:%H:%M:%S} UTC"] if status.until else []
        words += [status.error or status.last_error or ""]
        click.echo("  ".join(filter(None, words)).rstrip())
    sys.stdout.flush()
