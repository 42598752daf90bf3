"""A real Redis on a free port, for tests; without the program they are skipped, in CI they fail."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.stack import free_port

START_SECONDS = 20.0
STOP_SECONDS = 10.0


@dataclass
class RedisServer:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]
    command: tuple[str, ...] = ()
    directory: Path = Path()

    @property
    def url(self) -> str:
        """Its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def hang(self) -> None:
        """Take connections from now on, and answer none."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start it again, on the data that it kept."""
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory, stdout=log, stderr=log
            )
        _wait_until_it_answers(self.process, self.port)

    def go_on(self) -> None:
        """Answer again."""
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(directory: Path, *, durable: bool = False) -> Iterator[RedisServer]:
    """A server that keeps nothing on disk, or each write; yields when it answers."""
    program = shutil.which("redis-server")
    if program is None:
        missing = "there is no redis-server here; install it: apt install redis-server"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    port = free_port()
    keep = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", *keep]
    command = (program, *options)
    with (directory / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    server = RedisServer(port, process, command, directory)
    try:
        _wait_until_it_answers(process, port)
        yield server
    finally:
        process = server.process
        process.send_signal(signal.SIGCONT)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "redis-server ended at once"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.02)
    raise AssertionError("redis-server did not answer in time")
