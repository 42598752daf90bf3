"""`make production-local` as its command starts it, at addresses of its own.

Without the programs tests are skipped, in CI they fail.
"""

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.local.programs import missing
from tests.support.stack import ROOT, children, command_line, ended, eventually

START_SECONDS = 180.0
STOP_SECONDS = 180.0


@dataclass
class ProductionLocal:
    """The running topology.

    Args:
        network: the first three numbers of its addresses.
        directory: for its data, its logs and its output.
    """

    network: str
    directory: Path
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The API, through the proxy, as it was told."""
        found = re.search(r"^Ready: (\S+) ", self.said(), re.MULTILINE)
        assert found, self.said()
        return found[1]

    def addresses(self, service: str) -> list[str]:
        """Of a service's processes, as they were told."""
        found = re.search(rf"^{service} +(.+)$", self.said(), re.MULTILINE)
        assert found, self.said()
        return found[1].split(", ")

    def said(self) -> str:
        """What it has written."""
        return (self.directory / "output.log").read_text()

    async def command(self, *options: str, output: int) -> asyncio.subprocess.Process:
        """Start the command behind `make production-local`."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.local", "--network", self.network, *options),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        with (self.directory / "output.log").open("wb") as log:
            data = str(self.directory / "data")
            process = await self.command("--directory", data, output=log.fileno())
        self.process = process

        async def ready() -> bool:
            assert process.returncode is None, self.said()
            return "\nReady: " in self.said()

        await eventually(ready, START_SECONDS, "Ready")

    async def stop(self) -> int:
        """Stop it as an impatient user would; its exit code."""
        assert self.process is not None
        for _ in range(2):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()

    def processes(self) -> list[int]:
        """Whatever works in its folder, whoever its parent is by now."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and self._works_here(entry)
        ]

    def _works_here(self, entry: Path) -> bool:
        with contextlib.suppress(OSError):
            return (entry / "cwd").readlink().is_relative_to(self.directory)
        return False

    async def kill(self, service: str, address: str) -> None:
        """End a process as a crash would, and wait until it is gone."""
        assert self.process is not None
        [pid] = [
            each
            for each in children(self.process.pid)
            if command_line(each).rstrip().endswith(f"orchestrator {service}")
            and f"ORCHESTRATOR_AGENT__HOST={address}" in _environment(each)
        ]
        os.kill(pid, signal.SIGKILL)
        await ended([pid])

    def client(self) -> httpx.AsyncClient:
        """A client of the API, through the proxy."""
        return httpx.AsyncClient(base_url=self.url, timeout=70)


@contextlib.asynccontextmanager
async def production_local() -> AsyncIterator[ProductionLocal]:
    """The started topology; in the end it has stopped as it should, and left nothing behind."""
    if lacking := missing():
        reason = f"install first: apt install {' '.join(lacking)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Not pytest's folder, which PostgreSQL's own user could not enter.
    with tempfile.TemporaryDirectory(prefix="production-", dir=temporary()) as name:
        directory = Path(name)
        directory.chmod(0o755)  # noqa: ASYNC240 - once, before anything runs
        here = ProductionLocal(network(), directory)
        try:
            await here.start()
            yield here
            assert await here.stop() == 0, here.said()
            await ended(here.processes())
        finally:
            await _end(here)


async def _end(here: ProductionLocal) -> None:
    """Leave nothing, whatever has gone wrong; the reason is told by what went wrong first."""
    if here.process is not None and here.process.returncode is None:
        await here.stop()
    for pid in here.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")


def temporary() -> Path:
    """As /proc tells it."""
    return Path(tempfile.gettempdir()).resolve()


def network() -> str:
    """Addresses that only chance would give to another one."""
    return f"127.{100 + secrets.randbelow(150)}.{secrets.randbelow(256)}"
