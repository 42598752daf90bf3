"""``orchestrator doctor``: is everything there, and what has to be done where it is not."""

import json
import sys

import click

from orchestrator.api_command import Api, api_command
from orchestrator.display import Column, print_rows
from orchestrator.doctor import State, examine
from orchestrator.exits import Exit

_CHECKS = (
    Column("check", 34, "fold"),
    Column("state", 5, "whole"),
    Column("found", 50, "fold"),
    Column("what to do", fit="fold"),
)


@click.command()
@api_command
def command(api: Api, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Check configuration, keys, payloads, engine, search attributes, workers, API, agents, ports.

    Nothing is changed; a payload storage is tried by an object that is removed again. The exit code
    is 1 where a check failed; a warning leaves it at 0.

    \b
    Examples:
      orchestrator doctor
      orchestrator doctor --url http://10.0.0.5:8000 --json | jq -r .checks[].advice
    """
    found = examine(api)
    healthy = all(each.state is not State.FAIL for each in found)
    if as_json:
        checks = [each.model_dump(mode="json") for each in found]
        click.echo(json.dumps({"ok": healthy, "checks": checks}, indent=2))
    else:
        rows = ((each.name, each.state.value, each.found, each.advice) for each in found)
        print_rows(_CHECKS, rows)
    if not healthy:
        sys.stdout.flush()
        sys.exit(Exit.FAILED)
