"""``orchestrator codec-server``: show payloads to the Temporal Web UI and command line."""

import asyncio
import math
from pathlib import Path

import click
import uvicorn
import uvloop

from api.codec_server import CodecServer, create_app, origins_of
from api.command import Server, listen
from orchestrator.cli import config_option, plain_errors, settings_of
from orchestrator.config import Settings
from orchestrator.engine.payloads import converter_of
from orchestrator.errors import StartupError
from orchestrator.parts import grace_of, stop_on_signals
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.exposure import check_exposure, is_local_only
from orchestrator.telemetry import logging
from orchestrator.telemetry.logging import get_logger

log = get_logger(__name__)


@click.command()
@config_option
@click.option("--host", help="Where it listens. [default: payloads.codec_server.host]")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Where it listens. [default: payloads.codec_server.port]",
)
@plain_errors
def command(config_path: Path | None, host: str | None, port: int | None) -> None:
    """Decode payloads for the Temporal Web UI and command line, and encode what they send.

    It has the keys of payloads.encryption, and shows what they hide to whoever may read the tasks
    of all tenants: where security.keys_file or security.jwt is set, by the header Authorization.
    Pages of payloads.codec_server.origins alone may ask from within a browser.

    \b
    Examples:
      orchestrator codec-server
      orchestrator codec-server --config production.yaml --port 8081
      temporal workflow show -w TASK_ID --codec-endpoint http://127.0.0.1:8081
      temporal workflow show -w TASK_ID --codec-endpoint https://codec.example.com \\
        --codec-auth "Bearer $KEY"
    """
    settings = settings_of(config_path)
    logging.configure(settings.logging, "codec-server")
    section = settings.payloads.codec_server
    uvloop.run(serve(settings, host or section.host, port or section.port))


async def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal.

    Raises:
        StartupError: the port is taken, there are no keys, or everybody could ask.
    """
    section = settings.payloads
    if not (section.encryption.is_on or section.storage.is_on):
        raise StartupError(
            "The codec server has nothing to decode: payloads.encryption has no keys, and "
            "payloads.storage is none"
        )
    check_exposure(settings, host, "The codec server")
    codec = CodecServer(
        converter_of(settings),
        settings.temporal.namespace,
        Authenticator(settings),
        is_local_only=is_local_only(settings),
    )
    stop = stop_on_signals(grace_of(settings))
    with listen(host, port, "The codec server") as listener:
        server = Server(
            uvicorn.Config(
                create_app(settings, codec),
                loop="none",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=math.ceil(settings.temporal.shutdown_grace),
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        log.info("codec_server_ready", url=f"http://{host}:{port}", origins=origins_of(settings))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        stopping.cancel()
    log.info("codec_server_stopped")
