"""``orchestrator redrive``: run dead letters again, by the API."""

import json
import sys

import click

from orchestrator.api_command import Api, Id, api_command, explained, user
from orchestrator.client import ApiError
from orchestrator.display import Column, print_rows, tell
from orchestrator.exits import code_of

_TASKS = (Column("task", 36, "whole"), Column("status", 9), Column("agent"))


@click.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True, type=Id())
@click.option("--reason", default="", help="Kept with the dead letter.")
@api_command
def command(api: Api, task_ids: tuple[str, ...], reason: str, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Run each dead letter ID again under its id; many by a filter: dead-letters redrive.

    One that is refused does not keep the others back; the exit code is that of the first refusal.

    \b
    Examples:
      orchestrator redrive 550e8400-e29b-41d4-a716-446655440000 --reason "disk replaced"
      orchestrator redrive ID1 ID2 --json
    """
    done, refused = [], list[ApiError]()
    with api.client() as client:
        for task_id in task_ids:
            try:
                done.append(client.redrive(task_id, reason=reason, by=user()))
            except ApiError as error:
                refused.append(error)
                tell(f"orchestrator: {explained(error)}")
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in done], indent=2))
    elif done:
        print_rows(_TASKS, ((each.task_id, each.status.value, each.agent) for each in done))
    if refused:
        sys.stdout.flush()
        sys.exit(code_of(refused[0]))
