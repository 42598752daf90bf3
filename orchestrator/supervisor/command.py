"""The command ``orchestrator run``."""

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from orchestrator.cli import (
    config_file,
    config_option,
    environment_of,
    listen_options,
    plain_errors,
    settings_of,
)
from orchestrator.config import Settings
from orchestrator.live_settings import on_hangup
from orchestrator.supervisor.supervisor import (
    Running,
    Supervisor,
    engine_directory,
    reachable_host,
    uses_sample_agents,
    worker_metrics_port,
)
from orchestrator.telemetry import logging
from orchestrator.telemetry.logging import get_logger

log = get_logger(__name__)


@click.command()
@config_option
@click.option(
    "--data-dir",
    envvar="ORCHESTRATOR_DATA_DIR",
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the engine keeps its data. [default: storage.data_dir, .data]",
)
@listen_options
@click.option(
    "--agents-port",
    envvar="ORCHESTRATOR_AGENTS_PORT",
    show_envvar=True,
    type=click.IntRange(1, 65535),
    default=8100,
    show_default=True,
    help="Where the sample agents listen.",
)
@click.option(
    "--no-agents",
    envvar="ORCHESTRATOR_NO_AGENTS",
    show_envvar=True,
    is_flag=True,
    help="Start no sample agents.",
)
@plain_errors
def run(
    config_path: Path | None,
    data_dir: Path | None,
    host: str | None,
    port: int | None,
    agents_port: int,
    no_agents: bool,  # noqa: FBT001 - a flag of the command line
) -> None:
    """Run everything on this machine: engine, worker, API and sample agents.

    Ctrl-C or SIGTERM drains and ends all of it; a second one ends it by force. A part that crashes
    is started again. A configuration that has changed is taken over as it runs, on SIGHUP at once.

    \b
    Examples:
      orchestrator run
      orchestrator run --config my.yaml --no-agents
      orchestrator run --data-dir /var/lib/orchestrator --port 9000
    """
    environment = environment_of(host, port)
    if data_dir:
        environment["ORCHESTRATOR_STORAGE__DATA_DIR"] = str(data_dir.resolve())
    environment.setdefault("SAMPLE_AGENTS_URL", f"http://127.0.0.1:{agents_port}")
    settings = settings_of(config_path, environment)
    logging.configure(settings.logging, "run")
    wanted = not no_agents and uses_sample_agents(settings, agents_port)
    supervisor = Supervisor(
        settings,
        config_file(config_path),
        environment,
        agents_port if wanted else None,
    )
    asyncio.run(_run(supervisor, settings))


async def _run(supervisor: Supervisor, settings: Settings) -> None:
    """Start, watch until a signal, stop.

    Raises:
        StartupError: it could not start, or a part ends again and again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    on_hangup(supervisor.reload)
    with engine_directory(settings) as (directory, version):
        try:
            await _until(stop, _start_and_watch(supervisor, directory, version))
        finally:
            log.info("stopping")
            await supervisor.stop()
    log.info("stopped")


async def _start_and_watch(
    supervisor: Supervisor, directory: Path | None, version: str | None
) -> None:
    running = await supervisor.start(directory, version)
    show(running, supervisor.api_url)
    await supervisor.watch()


async def _until(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do the work until the event is set, or it fails."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def show(running: Running, api_url: str) -> None:
    """Say what runs where, and what to try first."""
    settings = running.settings
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("API", api_url, f"the dashboard; the documentation is at {api_url}/docs")
    if running.server_version:
        ports = settings.temporal.embedded
        table.add_row("Web UI", f"http://127.0.0.1:{ports.ui_port}", "Temporal's own")
        table.add_row(
            "Engine",
            f"127.0.0.1:{ports.port}",
            f"Temporal {running.server_version}, data in {running.data_dir}",
        )
    else:
        table.add_row(
            "Engine", settings.temporal.target, f"namespace {settings.temporal.namespace}"
        )
    table.add_row("Worker", "", f"calls {len(settings.agents)} agents")
    if settings.monitoring.enable_metrics:
        host, first = reachable_host(settings), settings.monitoring.metrics_port
        second = worker_metrics_port(settings)
        table.add_row(
            "Metrics", f"http://{host}:{first}", f"the API's; the worker's: port {second}"
        )
    if running.sample_agents:
        table.add_row("Sample agents", running.sample_agents, "what each takes: examples/README.md")
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(table)
    console.print(
        f"\nReady after {running.start_seconds:.1f} s{_probed(running)}. Stop with Ctrl-C.\n",
        style="bold",
    )


def _probed(running: Running) -> str:
    if running.probe_seconds is None:
        return ""
    return f"; a probe task went through in {running.probe_seconds * 1000:.0f} ms"
