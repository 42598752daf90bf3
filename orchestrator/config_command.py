"""``orchestrator config``: is a configuration right, and how is it understood?"""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.cli import config_option, plain_errors, settings_of
from orchestrator.config import Settings
from orchestrator.routing import kind_of

_WIDTH = 160


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@config_option
@click.option("--json", "as_json", is_flag=True, help="The settings as JSON, secrets hidden.")
@plain_errors
def check(file: Path | None, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Check a configuration and show how it is understood.

    All problems are shown at once, each with file, line and key; the exit code is then 2.

    \b
    Examples:
      orchestrator config check
      orchestrator config check staging.yaml
      orchestrator config check --json | jq .routing_rules
    """
    settings = settings_of(file or config_path)
    if as_json:
        click.echo(json.dumps(settings.model_dump(mode="json"), indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False, markup=False)
    console.print(_routes(settings))
    console.print(
        f"The configuration is right: {len(settings.routing_rules)} routing rules, "
        f"{len(settings.agents)} agents, engine {settings.temporal.address}."
    )


def _routes(settings: Settings) -> Table:
    table = Table(title="Routing rules")
    for heading in ("pattern", "kind", "agent", "endpoint", "timeout", "priority", "dispatch"):
        table.add_column(heading, overflow="fold")
    for rule in settings.routing_rules:
        kind = kind_of(rule.pattern, rule.match)
        cells = (
            rule.pattern,
            kind,
            rule.target_agent,
            rule.endpoint,
            f"{rule.timeout:g} s",
            str(rule.priority),
            rule.dispatch,
        )
        # Texts, so that brackets in a pattern are not read as markup.
        table.add_row(*map(Text, cells))
    return table
