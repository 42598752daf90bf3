"""A RabbitMQ server of its own, as Debian's package sets it up."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.children import child
from bench.subject import MissingError
from tests.support.stack import free_port

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


@dataclass(frozen=True)
class Broker:
    """A running server."""

    port: int
    pid: int

    @property
    def version(self) -> str:
        """Which it is."""
        found = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
        return " ".join(["RabbitMQ", *(path.name.partition("-")[2] for path in found)])

    @property
    def url(self) -> str:
        """Where it is."""
        return f"pyamqp://guest:guest@127.0.0.1:{self.port}//"


@asynccontextmanager
async def rabbitmq() -> AsyncIterator[Broker]:
    """A new server for the time of the block, with a port mapper of its own.

    Raises:
        MissingError: RabbitMQ is not installed.
    """
    mapper = _mapper()
    with tempfile.TemporaryDirectory(prefix="bench-rabbitmq-") as name:
        directory, port, names = Path(name), free_port(), free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"bench-{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": f"{name}/mnesia",
            "RABBITMQ_LOG_BASE": f"{name}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{name}/plugins",
            "RABBITMQ_CONF_ENV_FILE": f"{name}/none",
        }
        log = directory / "server.log"
        map_names = (mapper, "-port", str(names), "-address", "127.0.0.1")
        async with (
            child(*map_names, log=log, port=names),
            child(_SERVER, log=log, port=port, environment=environment) as server,
        ):
            yield Broker(port, server.pid)


def _mapper() -> str:
    mapper = shutil.which("epmd")
    if not _SERVER.exists() or mapper is None:
        raise MissingError("RabbitMQ is not installed (apt install rabbitmq-server)")
    return mapper
