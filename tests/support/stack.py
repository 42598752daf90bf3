"""The whole product as users start it: `orchestrator run`, on free ports in a temporary folder."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_SECONDS = 90.0
STOP_SECONDS = 60.0
_PORTS = 1_500


def _own_ports() -> Iterator[int]:
    """Ports for this process of tests alone, below those that outgoing connections take.

    None comes again soon: what gets it may need a while until it listens.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    first = 20_000 + worker * _PORTS
    start = random.randrange(_PORTS)  # noqa: S311
    for number in itertools.count(start):
        yield first + number % _PORTS


_ports = _own_ports()


def free_port() -> int:
    """A port that nobody listens on."""
    for port in _ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("there is always another port")


async def eventually(
    condition: Callable[[], Awaitable[Any]], seconds: float = 30.0, what: str = "condition"
) -> Any:
    """The condition's first true value; fails when it does not come in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := await condition():
            return value
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what} did not come about within {seconds:g} s")


@dataclass
class Stack:
    """One running product.

    Args:
        directory: for its data, its configuration and its output.
        config: the configuration as data; the ports are added.
        options: further options of `orchestrator run`.
        environment: further variables.
    """

    directory: Path
    config: dict[str, Any]
    options: tuple[str, ...] = ("--no-agents",)
    environment: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    def __post_init__(self) -> None:
        self.port, self.metrics_port = free_port(), _free_pair()
        self.engine_port, self.ui_port = free_port(), free_port()
        self.agents_port = free_port()
        self.output = self.directory / "output.log"
        self.errors = self.directory / "errors.log"
        self.config_path = self.directory / "config.yaml"
        self.data_dir = self.directory / "data"
        self.config_path.write_text(json.dumps(self.config))

    @property
    def url(self) -> str:
        """The API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> str:
        """The engine's address."""
        return f"127.0.0.1:{self.engine_port}"

    @property
    def namespace(self) -> str:
        """The engine's namespace."""
        return "default"

    @property
    def engine_folder(self) -> Path:
        """Where the engine keeps what it knows."""
        return self.data_dir

    @property
    def apis(self) -> list[str]:
        """Each API by itself."""
        return [self.url]

    @property
    def web_ui(self) -> str:
        """The engine's Web UI."""
        return f"http://127.0.0.1:{self.ui_port}"

    @property
    def metrics_urls(self) -> list[str]:
        """Where API and worker tell their metrics."""
        ports = (self.metrics_port, self.metrics_port + 1)
        return [f"http://127.0.0.1:{port}/metrics" for port in ports]

    @property
    def parts(self) -> int:
        """The processes that have the configuration: API and worker."""
        return 2

    def variables(self) -> dict[str, str]:
        """The environment of the product."""
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("ORCHESTRATOR_", "TEMPORAL_"))
        }
        return {
            **clean,
            "ORCHESTRATOR_CONFIG": str(self.config_path),
            "ORCHESTRATOR_DATA_DIR": str(self.data_dir),
            "ORCHESTRATOR_PORT": str(self.port),
            "ORCHESTRATOR_AGENTS_PORT": str(self.agents_port),
            "ORCHESTRATOR_MONITORING__METRICS_PORT": str(self.metrics_port),
            "ORCHESTRATOR_TEMPORAL__EMBEDDED__PORT": str(self.engine_port),
            "ORCHESTRATOR_TEMPORAL__EMBEDDED__UI_PORT": str(self.ui_port),
            **self.environment,
        }

    async def launch(self) -> None:
        """Start it without waiting."""
        with self.output.open("ab") as output, self.errors.open("ab") as errors:
            self.process = await asyncio.create_subprocess_exec(
                str(BIN / "orchestrator"),
                "run",
                *self.options,
                env=self.variables(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        seen = self.said().count("Ready after")
        await self.launch()
        process = self.process
        assert process is not None

        async def ready() -> bool:
            assert process.returncode is None, self.said() + self.complained()
            return self.said().count("Ready after") > seen

        await eventually(ready, START_SECONDS, "Ready")

    @contextlib.asynccontextmanager
    async def joined(self, part: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
        """One more process of the configuration: an ``api`` on that port, or a ``worker``."""
        environment = {
            "ORCHESTRATOR_STORAGE__DATA_DIR": str(self.data_dir),
            **self.variables(),
            "ORCHESTRATOR_MONITORING__ENABLE_METRICS": "false",
        }
        if part == "api":
            environment["ORCHESTRATOR_PORT"] = str(port)
        with (self.directory / f"{part}-{port}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                str(BIN / "orchestrator"),
                part,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()

    async def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it as a user would; its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()

    async def end(self) -> None:
        """Stop it, unless it has been; nothing of it may stay."""
        if self.process is None or self.process.returncode is not None:
            return
        left = children(self.process.pid)
        try:
            await self.stop()
        finally:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    if command_line(pid):
                        os.kill(pid, signal.SIGKILL)

    def said(self) -> str:
        """What it wrote to stdout."""
        return self.output.read_text() if self.output.exists() else ""

    def complained(self) -> str:
        """What it wrote to stderr."""
        return self.errors.read_text() if self.errors.exists() else ""

    def restarts(self) -> int:
        """How often a part was started again."""
        return self.said().count('"part_restarted"')

    def pid_of(self, part: str) -> int:
        """The process of a part: engine, worker, api or agents."""
        assert self.process is not None
        marks = {
            "engine": "start-dev",
            "agents": "examples.agents",
            "api": "api",
            "worker": "worker",
        }
        for pid in children(self.process.pid):
            if marks[part] in command_line(pid):
                return pid
        raise LookupError(part)

    def pids_of(self, part: str) -> list[int]:
        """The processes of a part; there is one of each."""
        return [self.pid_of(part)]

    async def everywhere(
        self, condition: Callable[[httpx.AsyncClient], Awaitable[Any]], what: str = "condition"
    ) -> None:
        """Wait until the condition is true of each API; what one learns the others hear later."""
        for url in self.apis:
            async with httpx.AsyncClient(base_url=url, timeout=70) as api:
                await eventually(partial(condition, api), what=f"{what} at {url}")

    async def agreed(self) -> None:
        """Wait until every API knows what any knows of the agents."""
        seen = 0

        async def knows(api: httpx.AsyncClient) -> bool:
            nonlocal seen
            version = int((await api.get("/agents")).json()["fleet"]["version"])
            seen = max(seen, version)
            return version == seen

        for _ in range(2):
            await self.everywhere(knows, "the newest state of the agents")

    def send(self, part: str, number: signal.Signals) -> None:
        """Signal a part."""
        for pid in self.pids_of(part):
            os.kill(pid, number)

    def hang_up(self) -> None:
        """Have it read its configuration again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    async def kill(self, part: str) -> None:
        """End a part as a crash would, and wait until it is gone."""
        pids = self.pids_of(part)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        async def gone() -> bool:
            return not any(map(command_line, pids))

        await eventually(gone, what=f"end of {part}")

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A client of its API."""
        return httpx.AsyncClient(base_url=self.url, timeout=70, **options)

    async def temporal(self, *arguments: str) -> str:
        """What the real command line answers; fails when it does."""
        process = await asyncio.create_subprocess_exec(
            str(BIN / "temporal"),
            *arguments,
            *("--address", self.engine, "--namespace", self.namespace),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode() + output.decode()
        return output.decode()


usual: list[Callable[..., Stack]] = [Stack]
"""What `running` starts; ``pytest --topology production`` puts another in its place."""


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    config: dict[str, Any],
    product: Callable[..., Stack] | None = None,
    **options: Any,
) -> AsyncIterator[Stack]:
    """A started stack, which is stopped and checked for left-overs at the end."""
    directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything runs
    stack = (product or usual[0])(directory, config, **options)
    try:
        await stack.start()
        yield stack
    finally:
        await stack.end()


def agent_config(url: str, **rules: Any) -> dict[str, Any]:
    """One agent at a URL, with a rule ``work`` and one ``fast`` that is called inline."""
    return {
        "agents": {"test_agent": {"instances": [{"url": url}], "capabilities": ["testing"]}},
        "routing_rules": [
            {"pattern": "work", "target_agent": "test_agent", "endpoint": "/work", **rules},
            {
                "pattern": "fast",
                "target_agent": "test_agent",
                "endpoint": "/work",
                "dispatch": "inline",
                **rules,
            },
        ],
        # The tests of a module share the agent: one that fails must not shut it for the others.
        "error_recovery": {"retry_delay": 0.2, "circuit_breaker_threshold": 1000},
    }


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    """A process's command line; empty when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


async def ended(pids: Collection[int], seconds: float = 30.0) -> None:
    """Wait until the processes have ended; names those that stay, ends them, and fails."""

    def left() -> dict[int, str]:
        return {pid: line for pid in pids if (line := command_line(pid))}

    async def none_left() -> bool:
        return not left()

    try:
        await eventually(none_left, seconds)
    except AssertionError:
        stayed = left()
        for pid in stayed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lines = "".join(f"\n{pid}: {line}" for pid, line in stayed.items())
        raise AssertionError(f"still there after {seconds:g} s:{lines}") from None


def _free_pair() -> int:
    """The first of two neighbouring free ports."""
    first = free_port()
    while (second := free_port()) != first + 1:
        first = second
    return first
