"""The command ``orchestrator``: finds the parts' commands and ends the process cleanly."""

import gc
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import click

from orchestrator import __version__
from orchestrator.config import Settings
from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError, StartupError

COMMANDS = "orchestrator.commands"
EXIT_CONFIGURATION = 2
EXIT_STARTUP = 1


class _Parts(click.Group):
    """Commands that are loaded only when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(entry_points(group=COMMANDS).names)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        for entry in entry_points(group=COMMANDS, name=cmd_name):
            # What is loaded stays: to look for garbage in it meanwhile is time for nothing.
            collects = gc.isenabled()
            gc.disable()
            try:
                command: click.Command = entry.load()
            finally:
                if collects:
                    gc.enable()
            return command
        return None


@click.group(cls=_Parts, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orchestrator")
def orchestrator() -> None:
    """Durable orchestration of HTTP agents on Temporal.

    \b
    Examples:
      orchestrator run                     everything on this machine
      orchestrator worker --config c.yaml  one worker, against the engine that c.yaml names
      orchestrator config check c.yaml     is the configuration right?
      orchestrator submit PATTERN --wait   one task, and its result

    Options can also be given as environment variables ORCHESTRATOR_<OPTION>, every value of the
    configuration as ORCHESTRATOR_<SECTION>__<KEY>.
    """


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config``, ./config.yaml where there is one."""
    return click.option(
        "--config",
        "config_path",
        envvar="ORCHESTRATOR_CONFIG",
        show_envvar=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="The configuration file. [default: config.yaml, if it is there]",
    )(command)


def listen_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--host`` and ``--port`` of the API."""
    host = click.option(
        "--host",
        envvar="ORCHESTRATOR_HOST",
        show_envvar=True,
        help="Where the API listens. [default: agent.host]",
    )
    port = click.option(
        "--port",
        envvar="ORCHESTRATOR_PORT",
        show_envvar=True,
        type=click.IntRange(1, 65535),
        help="Where the API listens. [default: agent.port]",
    )
    return host(port(command))


def environment_of(host: str | None = None, port: int | None = None) -> dict[str, str]:
    """This process's environment with options of the command line on top, for children too."""
    environment = dict(os.environ)
    if host:
        environment["ORCHESTRATOR_AGENT__HOST"] = environment["ORCHESTRATOR_HOST"] = host
    if port:
        environment["ORCHESTRATOR_AGENT__PORT"] = environment["ORCHESTRATOR_PORT"] = str(port)
    return environment


def config_file(config_path: Path | None) -> Path | None:
    """The file that was named, or ./config.yaml if it is there."""
    default = Path("config.yaml")
    return config_path or (default if default.exists() else None)


def settings_of(config_path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Load the settings that a command's options name.

    Raises:
        ConfigurationError: they are wrong.
    """
    return load(config_file(config_path), environment)


def plain_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """End with one clear line and an exit code where a traceback would tell users nothing."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ConfigurationError as error:
            click.echo(str(error), err=True)
            sys.exit(EXIT_CONFIGURATION)
        except StartupError as error:
            click.echo(f"orchestrator: {error}", err=True)
            sys.exit(EXIT_STARTUP)

    return wrapped


def main() -> NoReturn:
    """The entry point.

    Leaves by ``os._exit``: the engine's client may abort the interpreter while it ends. Everything
    has been closed by then.
    """
    code: int | str | None = 0
    try:
        orchestrator()
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        code = 130
    with suppress(OSError):  # the reader may have gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
