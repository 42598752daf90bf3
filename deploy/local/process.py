"""One process of the topology: started, signalled, ended; it never outlives us."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

STOP_SECONDS = 80.0
_PR_SET_PDEATHSIG = 1
_LIBRARY = ctypes.CDLL(None)


class CannotRun(Exception):
    """A service cannot be started, or does not become ready; where its log is."""


@dataclass
class Process:
    """What is run, and the process once it is started.

    Args:
        name: for its reader.
        command: the program and its arguments.
        environment: the whole environment.
        directory: where it works.
        log: where its output goes.
        user: who runs it, where that is not us.
        ends: whether it does its work and ends, instead of serving.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    user: str | None = None
    ends: bool = False
    _running: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, in a session of its own, so that Ctrl-C reaches it through us, in order.

        Raises:
            CannotRun: there is no such program, or no such user.
        """
        with self.log.open("ab") as log:
            try:
                self._running = subprocess.Popen(  # noqa: S603 - commands of our own
                    self.command,
                    cwd=self.directory,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    user=self.user,
                    group=self.user,
                    start_new_session=True,
                    preexec_fn=partial(_end_with, os.getpid()),  # noqa: PLW1509 - two system calls
                )
            except OSError as error:
                raise CannotRun(f"{self.command[0]} cannot be started: {error.strerror}") from None

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._running is not None  # noqa: S101 - started by whoever made it
        return self._running.pid

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._running.poll() if self._running else None

    def run(self) -> None:
        """Start it and wait for its end.

        Raises:
            CannotRun: it cannot be started, or has failed.
        """
        self.start()
        assert self._running is not None  # noqa: S101 - was started
        if self._running.wait():
            raise CannotRun(f"{self.command[0]} has failed: see {self.log}")

    def send(self, number: signal.Signals) -> None:
        """Signal it and all of its session, unless it has ended."""
        if self._running is not None and self.code is None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, number)

    def end(self) -> None:
        """Wait for the end of one that was told to, and end it by force after a while."""
        if self._running is None:
            return
        try:
            self._running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._running.wait()


def _end_with(parent: int) -> None:
    """Have the kernel kill this child the moment its parent dies, even by kill -9.

    All end as in a power cut then, which their data survives, and leave their ports to the next.
    """
    _LIBRARY.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
