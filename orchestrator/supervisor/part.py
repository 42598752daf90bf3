"""One child process: start it, watch it, end it."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOG_TAIL_LINES = 5


@dataclass
class Part:
    """A child process.

    Args:
        name: as people call it.
        arguments: the command line.
        environment: the whole environment.
        grace_seconds: how long it may take to end politely.
        log: a file for its output; None shares ours.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    grace_seconds: float
    log: Path | None = None
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches it through us, in order."""
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(self.log.open("ab")) if self.log else None
            self.process = await asyncio.create_subprocess_exec(
                *self.arguments,
                env=dict(self.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=partial(_end_with, os.getpid()) if sys.platform == "linux" else None,
            )

    async def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        assert self.process is not None  # noqa: S101 - started before it is watched
        return await self.process.wait()

    async def stop(self) -> None:
        """End it politely, and by force after its grace."""
        if self.process is None or self.process.returncode is not None:
            return
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.grace_seconds):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()

    def hang_up(self) -> None:
        """Have it read its configuration again."""
        if self.process is not None and self.process.returncode is None:
            self._send(signal.SIGHUP)

    def kill(self) -> None:
        """End it by force."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None:
                self.process.send_signal(number)

    def last_words(self) -> str:
        """The end of its log file, for a reader who wants to know why it ended."""
        if self.log is None:
            return ""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            return "\n".join(lines)
        return ""


def end_of(code: int) -> str:
    """``exit code 1``, or ``signal SIGKILL``."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _end_with(parent: int) -> None:
    """Have the kernel kill this child the moment its parent dies, even by kill -9.

    A polite signal would come too late to be useful and last too long: it reaches all parts at
    once, so that the engine leaves before the others have handed over what they drain, and nobody
    is left to end one that hangs. Killed together they end as in a crash, which tasks survive, and
    leave the ports and the engine's file to the next start.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Until it listens to that signal, it has yet to read the configuration anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.getppid() != parent:
        os._exit(1)
