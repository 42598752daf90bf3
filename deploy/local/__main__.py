"""The command behind `make production-local`."""

import os
import signal
import sys
import time
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import click

from deploy.local.process import CannotRun
from deploy.local.programs import missing, programs, temporal_server
from deploy.local.running import Production, alone
from deploy.local.topology import NOT_HERE, Topology

DIRECTORY = Path(".data") / "production"
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_INSTRUCTIONS = """\
The development server on a file stands for Temporal's server and PostgreSQL. To have these: apt
install postgresql, and with Go put temporal-server and temporal-sql-tool on PATH (docs/docker.md).
"""


def _loopback(_: click.Context, __: click.Parameter, network: str) -> str:
    """Refuse what is no network of this machine alone."""
    with suppress(ValueError):
        if IPv4Address(f"{network}.1").is_loopback:
            return network
    raise click.BadParameter("three numbers, the first of which is 127, such as 127.78.0")


@click.command()
@click.option(
    "--network",
    default="127.77.0",
    show_default=True,
    callback=_loopback,
    help="The first three numbers of the loopback addresses.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DIRECTORY,
    show_default=True,
    help="For data, logs and what is rendered.",
)
@click.option(
    "--engine",
    type=click.Choice(["postgresql", "development"]),
    help="Temporal's server on PostgreSQL where it is installed, else the development server.",
)
def main(network: str, directory: Path, engine: str | None) -> None:
    """Run the topology of docker-compose.yml from programs of this machine, until Ctrl-C.

    \b
    Examples:
      python -m deploy.local
      python -m deploy.local --network 127.78.0 --directory /tmp/try --engine development
    """
    if sys.platform != "linux":
        raise click.ClickException("this needs Linux; elsewhere use docker compose up")
    if lacking := missing():
        raise click.ClickException(f"install first: apt install {' '.join(lacking)}")
    with_postgresql = temporal_server() if engine is None else engine == "postgresql"
    if with_postgresql and not temporal_server():
        raise click.ClickException("PostgreSQL, temporal-server or temporal-sql-tool is missing")
    if not with_postgresql:
        click.echo(_INSTRUCTIONS)
    topology = Topology(network, directory.absolute(), os.environ, NOT_HERE)
    for number in _STOP:
        signal.signal(number, stop)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        chosen = programs(with_postgresql=with_postgresql)
        with alone(directory), Production(topology, chosen, click.echo) as production:
            click.echo(f"\nReady: {production.url} (docs: {production.url}/docs). Ctrl-C stops it.")
            production.keep(_wait)
    except (CannotRun, OSError) as error:
        raise click.ClickException(str(error)) from None


def _wait(seconds: float) -> bool:
    """Always wait on; a signal ends it."""
    time.sleep(seconds)
    return False


def stop(*_: object) -> None:
    """End; a second Ctrl-C must not break off the stopping, which would leave programs behind."""
    for number in _STOP:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    main()
