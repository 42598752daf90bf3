"""The whole product and its surroundings, each part of which can be made to fail.

`orchestrator run` with engine, worker and API; a second worker and API, which reach the engine
through a proxy; three agent processes; a broker behind a proxy; a receiver of callbacks.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.parts import Part, Program, Supervised
from tests.chaos.proxy import Proxy
from tests.chaos.receiver import Receiver
from tests.chaos.records import Records
from tests.support import rabbit
from tests.support.rabbit import RabbitServer, rabbit_server
from tests.support.receivers import SECRET
from tests.support.redis import RedisServer, redis_server
from tests.support.stack import BIN, Stack, free_port, running

AGENTS = {"plain": ("a", "b"), "once": ("c",), "metered": ("c",)}
"""Each agent, and the processes that are its instances."""
MAX_CONNECTIONS = 12
METERED_A_MINUTE, METERED_BURST = 60, 2
MAX_RETRIES = 3
ATTEMPT_SECONDS = 4
ANSWER_SECONDS = 20
HOPELESS_SECONDS = 40
"""The deadline of tasks for an agent that never comes back, which they would wait for."""
DISK_MEGABYTES = 600
QUEUE, DEAD = "orchestrator.tasks", "orchestrator.tasks.dead"
FAKETIME = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1"


@dataclass
class Stage:
    """What the program and the faults act on."""

    directory: Path
    stack: Stack
    agents: dict[str, Program]
    second_api: Program
    second_worker: Program
    engine_link: Proxy
    receiver: Receiver
    records: Records
    broker: RabbitServer | RedisServer | None = None
    broker_link: Proxy | None = None
    clock: Path | None = None
    disk: Path | None = None
    parts: dict[str, Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("worker", "api", "engine"):
            self.parts[name] = Supervised(self.stack, name, self._healthy)
        self.parts["second worker"] = self.second_worker
        self.parts["second api"] = self.second_api
        self.parts |= {f"agent {name}": each for name, each in self.agents.items()}

    @property
    def urls(self) -> tuple[str, str]:
        """Of both APIs."""
        return self.stack.url, self.second_api.environment[
            "URL"
        ] if self.second_api.environment else ""

    def callers(self) -> dict[int, Part]:
        """The processes that call agents."""
        found = {}
        for name in ("worker", "api", "second worker", "second api"):
            with contextlib.suppress(LookupError):
                found[self.parts[name].pid] = self.parts[name]
        return found

    async def _healthy(self) -> bool:
        return await _answers(f"{self.stack.url}/health")


async def _answers(url: str) -> bool:
    async with httpx.AsyncClient(timeout=5) as client:
        with contextlib.suppress(httpx.TransportError):
            return (await client.get(url)).is_success
    return False


def config(ports: dict[str, int], broker: str, broker_port: int | None) -> dict[str, Any]:
    """The product's configuration: quick retries, small bounds, every way to dispatch."""
    queue = {"type": broker, "host": "127.0.0.1", "port": broker_port, "reclaim_after": 5}
    return {
        "agents": _agents(ports),
        "routing_rules": _rules(),
        "error_recovery": {
            "max_retries": MAX_RETRIES,
            "retry_delay": 0.3,
            "max_retry_delay": 2,
            "max_retry_after": 3,
            "circuit_breaker_threshold": 8,
            "circuit_breaker_timeout": 2,
            "circuit_breaker": {"max_open": 5},
        },
        "load_balancing": {
            "max_connections_per_agent": MAX_CONNECTIONS,
            "health_check_interval": 2,
        },
        "priority_queue": {"max_queue_size": 3000},
        "callbacks": {
            "secret": SECRET,
            "allow": ["127.0.0.1"],
            "retry_delays": [0.3, 0.5, 1, 2, 2, 3, 3, 3, 3, 3, 3],
            "timeout": 3,
        },
        "completions": {"secret": "a secret of the fault suite"},
        "temporal": {"rpc_timeout": 3, "shutdown_grace": 5},
        "message_queue": queue if broker_port else {"type": "none"},
        "logging": {"level": "info"},
    }


def _agents(ports: dict[str, int]) -> dict[str, Any]:
    def instances(*names: str) -> list[dict[str, str]]:
        return [{"url": f"http://127.0.0.1:{ports[name]}"} for name in names]

    return {
        "plain": {"instances": instances("a", "b")},
        "once": {"instances": instances("c"), "idempotent": False},
        "metered": {
            "instances": instances("c"),
            "rate_limit": {"rate": METERED_A_MINUTE, "burst": METERED_BURST, "mode": "queue"},
        },
        # TLS to a port that speaks none.
        "tls": {"instances": [{"url": f"https://127.0.0.1:{ports['c']}"}]},
    }


def _rules() -> list[dict[str, Any]]:
    def rule(pattern: str, agent: str = "plain", **more: Any) -> dict[str, Any]:
        common = {"timeout": ATTEMPT_SECONDS, "answer_timeout": ANSWER_SECONDS}
        endpoint = f"/jobs/{agent}"
        return {"pattern": pattern, "target_agent": agent, "endpoint": endpoint, **common, **more}

    return [
        rule("queued"),
        rule("inline", dispatch="inline"),
        rule("coalesced", dispatch="coalesced"),
        rule("once", "once"),
        rule("metered", "metered"),
        rule("tls", "tls"),
        rule("falls back", "tls", fallback_agents=["plain"]),
    ]


@contextlib.asynccontextmanager
async def staged(directory: Path, broker: str, *, whole: bool) -> AsyncIterator[Stage]:
    """Everything started, and ended at the end.

    Args:
        directory: for all its files.
        broker: rabbitmq, redis or none.
        whole: with what needs rights on this machine: a small disk, another clock.
    """
    ports = {name: free_port() for name in "abc"}
    async with contextlib.AsyncExitStack() as closing:
        disk = closing.enter_context(_small_disk(directory / "disk")) if whole else None
        running_broker = closing.enter_context(_broker(broker, directory))
        link = Proxy(free_port(), running_broker.port) if running_broker else None
        if link:
            await closing.enter_async_context(link)
        receiver = await closing.enter_async_context(Receiver())
        agents = {}
        for name, port in ports.items():
            agents[name] = _agent(directory, name, port)
            closing.push_async_callback(agents[name].end)
            await agents[name].start()
        stack = await closing.enter_async_context(
            running(
                directory / "product",
                config(ports, broker, link.port if link else None),
                environment={"ORCHESTRATOR_DATA_DIR": str(disk)} if disk else {},
            )
        )
        engine_link = await closing.enter_async_context(Proxy(free_port(), stack.engine_port))
        clock = _clock(directory) if whole else None
        api, worker = _second(stack, engine_link.port, clock)
        for program in (api, worker):
            closing.push_async_callback(program.end)
            await program.start()
        records = Records([directory / f"agent-{name}.record" for name in ports])
        yield Stage(
            *(directory, stack, agents, api, worker, engine_link, receiver, records),
            *(running_broker, link, clock, disk),
        )


def _agent(directory: Path, name: str, port: int) -> Program:
    arguments = [sys.executable, "-m", "tests.chaos.agent", str(port)]
    return Program(
        f"agent {name}",
        [*arguments, str(directory / f"agent-{name}.record")],
        directory / f"agent-{name}.log",
        lambda: _answers(f"http://127.0.0.1:{port}/health"),
    )


def _second(stack: Stack, engine_port: int, clock: Path | None) -> tuple[Program, Program]:
    """Another API and worker, which reach the engine at that port."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **stack.variables(),
        "URL": url,
        "ORCHESTRATOR_TEMPORAL__ADDRESS": f"127.0.0.1:{engine_port}",
        "ORCHESTRATOR_PORT": str(port),
        "ORCHESTRATOR_MONITORING__ENABLE_METRICS": "false",
        **(_other_clock(clock) if clock else {}),
    }
    program = str(BIN / "orchestrator")

    async def always() -> bool:
        return True

    return (
        Program(
            "second api",
            [program, "api"],
            stack.directory / "second-api.log",
            lambda: _answers(f"{url}/health"),
            environment,
        ),
        Program(
            "second worker",
            [program, "worker"],
            stack.directory / "second-worker.log",
            always,
            environment,
        ),
    )


def _clock(directory: Path) -> Path | None:
    """The file that says how far the second pair's clock is off, where that can be done."""
    if not Path(FAKETIME).exists():
        return None
    path = directory / "clock"
    path.write_text("+0\n")
    return path


def _other_clock(path: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(path),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@contextlib.contextmanager
def _small_disk(directory: Path) -> Iterator[Path | None]:
    """A disk of its own for the engine's data; None where this user may not mount one."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "none", str(directory)]
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or subprocess.run(mount, check=False).returncode
    ):
        yield None
        return
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False)


@contextlib.contextmanager
def _broker(kind: str, directory: Path) -> Iterator[RabbitServer | RedisServer | None]:
    place = directory / "broker"
    place.mkdir()
    if kind == "rabbitmq":
        with rabbit_server(place) as server:
            yield server
    elif kind == "redis":
        with redis_server(place, durable=True) as redis:
            yield redis
    else:
        yield None


def brokers() -> Sequence[str]:
    """Those that this machine has, the best first."""
    found = []
    if Path(rabbit.PROGRAM).exists() and shutil.which(rabbit.EPMD):
        found.append("rabbitmq")
    if shutil.which("redis-server"):
        found.append("redis")
    return [*found, "none"]
