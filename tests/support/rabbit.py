"""A real RabbitMQ of its own on free ports; without the program tests are skipped, in CI they fail.

It has its own node name, port mapper, cookie and folders, so it meets no other on this machine.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection

from tests.support.stack import free_port

PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's program itself: its wrapper in /usr/sbin insists on another user."""
EPMD = "epmd"
START_SECONDS = 150.0
STOP_SECONDS = 20.0
STARTS = 3


class EndedAtOnce(AssertionError):
    """It could not start."""


@dataclass
class RabbitServer:
    """A broker that can be killed and started again on its data."""

    directory: Path
    program: str
    port: int = field(default_factory=free_port)
    dist_port: int = field(default_factory=free_port)
    epmd_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its default user, who may come from this machine only."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        environment = self._environment()
        with (self.directory / "rabbit.log").open("ab") as log:
            if self.epmd is None:
                self.epmd = subprocess.Popen(
                    [EPMD, "-port", str(self.epmd_port), "-address", "127.0.0.1"],
                    stdout=log,
                    stderr=log,
                )
            # A group of its own: the Erlang machine is a child of a shell script.
            self.process = subprocess.Popen(
                [self.program],
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_it_answers()

    def _environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RABBITMQ_")}
        here = str(self.directory)
        return {
            **clean,
            "HOME": here,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_PID_FILE": f"{here}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/rabbitmq-env.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +S 1:1",
        }

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + START_SECONDS
        log = self.directory / "log" / f"test{self.port}@localhost.log"
        ready = log.read_text().count("Server startup complete") if log.exists() else 0
        while time.monotonic() < end:
            assert self.process is not None
            if self.process.poll() is not None:
                raise EndedAtOnce(f"rabbitmq-server ended at once; see {self.directory}/rabbit.log")
            if log.exists() and log.read_text().count("Server startup complete") > ready:
                return
            time.sleep(0.05)
        raise AssertionError("rabbitmq-server did not start in time")

    def kill(self) -> None:
        """End it as a power cut would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it, and its port mapper."""
        self._signal(signal.SIGTERM)
        if self.epmd is not None:
            self.epmd.terminate()
            self.epmd.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        group = self.process.pid
        with suppress(ProcessLookupError):
            os.killpg(group, number)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self.process.wait()

    async def connect(self) -> AbstractConnection:
        """A connection of a test."""
        return await aio_pika.connect(self.url, timeout=20)


@contextmanager
def rabbit_server(directory: Path) -> Iterator[RabbitServer]:
    """A started broker, stopped at the end."""
    if not Path(PROGRAM).exists() or shutil.which(EPMD) is None:
        missing = "there is no rabbitmq-server here; install it: apt install rabbitmq-server"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    server = _started(directory, STARTS)
    try:
        yield server
    finally:
        server.stop()


def _started(directory: Path, tries: int) -> RabbitServer:
    """A server that takes connections; while it starts, another program may take its ports."""
    place = directory / f"try-{tries}"
    place.mkdir(parents=True)
    (place / "enabled_plugins").write_text("[].\n")
    server = RabbitServer(place, PROGRAM)
    try:
        server.start()
    except EndedAtOnce:
        server.stop()
        if tries == 1:
            raise
        return _started(directory, tries - 1)
    except BaseException:
        server.stop()
        raise
    return server


async def send(channel: AbstractChannel, queue: str, body: bytes, **properties: object) -> None:
    """Publish one durable message, confirmed."""
    message = aio_pika.Message(
        body,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        **properties,  # type: ignore[arg-type]
    )
    await channel.default_exchange.publish(message, queue, timeout=20)
