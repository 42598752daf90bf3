"""What the commands share that look at the engine, or give it orders, without the API."""

import asyncio
import getpass
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError
from rich.console import Console
from temporalio.client import Client

from orchestrator.cli import settings_of
from orchestrator.config import Settings
from orchestrator.engine.connect import connect
from orchestrator.engine.converter import problems
from orchestrator.errors import OrchestratorError, StartupError

Result = TypeVar("Result")
AnyModel = TypeVar("AnyModel", bound=BaseModel)

_TYPED = click.core.ParameterSource.COMMANDLINE


def json_option(text: str = "As the API answers.") -> Callable[..., Any]:
    """``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def user() -> str:
    """Who gives an order, for whoever looks at it later."""
    try:
        return getpass.getuser()[:100]
    except (KeyError, OSError):
        return "command line"


def is_for_subcommand(context: click.Context) -> bool:
    """Whether a subcommand does the work.

    Raises:
        click.UsageError: options stand before it, where they would be passed over.
    """
    if context.invoked_subcommand is None:
        return False
    if any(context.get_parameter_source(name) is _TYPED for name in context.params):
        raise click.UsageError(f"Put the options after {context.invoked_subcommand}.")
    return True


def valid(kind: type[AnyModel], fields: dict[str, Any], prefix: str = "") -> AnyModel:
    """The model of what was given; what is None was not.

    Raises:
        click.UsageError: every misfit, its field's name after ``prefix``.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise click.UsageError("; ".join(f"{prefix}{each}" for each in problems(error))) from None


def run(
    config_path: Path | None,
    name: str,
    work: Callable[[Settings, Client], Coroutine[Any, Any, Result]],
) -> Result:
    """Do it with the engine that the configuration names; to the engine we are ``user@name``.

    Raises:
        StartupError: in one line, why it cannot be done.
    """

    async def connected() -> Result:
        settings = settings_of(config_path)
        client = await connect(settings.temporal, identity=f"{user()}@{name}")
        try:
            return await work(settings, client)
        except OrchestratorError as error:
            raise StartupError(str(error)) from None

    return asyncio.run(connected())


def console(width: int) -> Console:
    """Where tables go: as wide as the terminal, or as ``width`` where there is none."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False)


def print_json(answer: BaseModel) -> None:
    """A model as the API would answer it, for people and programs."""
    click.echo(answer.model_dump_json(indent=2))
