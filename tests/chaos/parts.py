"""The processes that may be killed, stopped and frozen, and how one sees that it has happened."""

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.support.stack import Stack, command_line, eventually

BACK_SECONDS = 180.0
"""How long a part may take to serve again on a busy machine."""
SUPERVISED_DEATHS, SUPERVISED_SECONDS = 3, 65.0
"""`orchestrator run` gives up on a part that ends six times a minute."""

Check = Callable[[], Awaitable[bool]]


class NotFired(Exception):
    """The fault could not be had at this moment; it counts as not fired."""


class Part(Protocol):
    """A process of the product or of its surroundings."""

    name: str

    @property
    def pid(self) -> int:
        """Of the process as it is now; raises LookupError when there is none."""
        ...

    async def back(self) -> None:
        """Wait until it serves, after it has ended; start it where nobody else does."""
        ...

    def may_die(self) -> bool:
        """Whether it has not ended too often of late."""
        ...

    def died(self) -> None:
        """Note that it has been ended."""
        ...


@dataclass
class Program:
    """A process of ours, which we start again ourselves.

    Args:
        name: as the report calls it.
        arguments: the command line.
        environment: the whole environment; None is ours.
        log: where its output goes.
        serves: tells whether it does its work.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    serves: Check
    environment: Mapping[str, str] | None = None
    process: asyncio.subprocess.Process | None = None
    deaths: dict[int, float] = field(default_factory=dict)
    """When each process that was ended was ended."""

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self.process is None or self.process.returncode is not None:
            raise LookupError(self.name)
        return self.process.pid

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.arguments,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await eventually(self.serves, BACK_SECONDS, f"start of {self.name} (see {self.log})")

    async def back(self) -> None:
        """Start it again."""
        if self.process is not None:
            await self.process.wait()
        await self.start()

    def may_die(self) -> bool:
        """Nobody counts its deaths."""
        return True

    def died(self) -> None:
        """Note when."""
        self.deaths[self.pid] = time.monotonic()

    async def end(self) -> None:
        """End it for good."""
        with contextlib.suppress(LookupError, ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)
        if self.process is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                await self.process.wait()
                return
        self.process.kill()
        await self.process.wait()


@dataclass
class Supervised:
    """A part of `orchestrator run`, which starts it again."""

    stack: Stack
    name: str
    serves: Check
    deaths: deque[float] = field(default_factory=deque)
    _last: int = 0

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self.stack.pid_of(self.name)

    async def back(self) -> None:
        """Wait until `orchestrator run` has started another, and that serves."""

        async def another() -> bool:
            with contextlib.suppress(LookupError):
                return self.pid != self._last
            return False

        await eventually(another, BACK_SECONDS, f"restart of {self.name}")
        await eventually(self.serves, BACK_SECONDS, f"readiness of {self.name}")

    def may_die(self) -> bool:
        """Not more often than `orchestrator run` puts up with."""
        since = time.monotonic() - SUPERVISED_SECONDS
        return sum(1 for at in self.deaths if at > since) < SUPERVISED_DEATHS

    def died(self) -> None:
        """Note when."""
        self.deaths.append(time.monotonic())


async def end(part: Part, number: signal.Signals = signal.SIGKILL) -> None:
    """End a part and wait until it is gone and serves again.

    Raises:
        NotFired: it may not die now, or is not there.
    """
    await strike(part, number)
    await part.back()


async def strike(part: Part, number: signal.Signals = signal.SIGKILL) -> None:
    """End a part and wait until it is gone.

    Raises:
        NotFired: it may not die now, or is not there.
    """
    pid = _pid(part)
    if not part.may_die():
        raise NotFired(f"{part.name} ended too often of late")
    if isinstance(part, Supervised):
        part._last = pid
    part.died()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

    async def gone() -> bool:
        return not command_line(pid)

    await eventually(gone, BACK_SECONDS, f"end of {part.name}")


async def freeze(part: Part, seconds: float) -> None:
    """Stop a part by SIGSTOP for some seconds; a part that ends meanwhile has been frozen too.

    Raises:
        NotFired: it is not there.
    """
    pid = _pid(part)
    try:
        os.kill(pid, signal.SIGSTOP)

        async def stopped() -> bool:
            return state(pid) in {"T", ""}

        await eventually(stopped, what=f"standstill of {part.name}")
        await asyncio.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    """A process's state as the kernel names it, such as T for stopped; empty when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def rss(pid: int) -> int:
    """What a process has in memory, in bytes; 0 when it has ended."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def caller_by_port(port: int, pids: Sequence[int]) -> int | None:
    """Which of the processes has the local end of a connection from that port."""
    inodes = {
        columns[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if int((columns := line.split())[1].rpartition(":")[2], 16) == port
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(entry) in wanted:  # noqa: PTH115 - no path, a socket
                        return pid
    return None


def _pid(part: Part) -> int:
    try:
        return part.pid
    except (LookupError, ProcessLookupError):
        raise NotFired(f"{part.name} is not there") from None
