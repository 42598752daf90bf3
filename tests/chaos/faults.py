"""The faults: each does one thing to one part, heals it, and returns once that serves again.

Rows are those of the fault matrix in docs/chaos.md. A fault that could not be had raises NotFired.
"""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random

import httpx

from orchestrator.engine.embedded import DATABASE
from tests.chaos.parts import NotFired, end, freeze, strike
from tests.chaos.stage import Stage
from tests.support.agents import Reply
from tests.support.rabbit import RabbitServer
from tests.support.redis import RedisServer
from tests.support.stack import eventually

IN_FLIGHT_SECONDS = 10.0
PAST_HEARTBEAT_SECONDS = 13.0
DESCRIPTORS_LEFT = 2
PIECE_BYTES = 64 * 1024
RELOADED = '"config_reloaded"'
CLOCK_JUMPS = ("+120", "-120", "+0")


class Lane(StrEnum):
    """Faults of one lane take turns; both lanes go at the same time."""

    PRODUCT = "product"
    SURROUNDINGS = "surroundings"


Inject = Callable[[Stage, Random], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One way to break something.

    Args:
        row: of the matrix.
        name: what is done.
        lane: with which it takes turns.
        inject: does it, and returns when all is well again.
        short: part of the run of one minute.
    """

    row: str
    name: str
    lane: Lane
    inject: Inject
    short: bool = False


def _killed(part: str, number: signal.Signals = signal.SIGKILL) -> Inject:
    async def inject(stage: Stage, _: Random) -> None:
        await end(stage.parts[part], number)

    return inject


def _killed_mid_call(part: str) -> Inject:
    async def inject(stage: Stage, _: Random) -> None:
        until = time.monotonic() + IN_FLIGHT_SECONDS
        while stage.records.in_flight() == 0:
            if time.monotonic() > until:
                raise NotFired("no call is in flight")
            await asyncio.sleep(0.02)
        await end(stage.parts[part])

    return inject


def _frozen(part: str, least: float, most: float) -> Inject:
    async def inject(stage: Stage, random: Random) -> None:
        await freeze(stage.parts[part], random.uniform(least, most))

    return inject


async def _engine_frozen(stage: Stage, _: Random) -> None:
    """While it stands still the API refuses by itself, and loses nothing."""
    frozen = asyncio.create_task(freeze(stage.parts["engine"], 8))
    try:
        await asyncio.sleep(0.5)
        async with httpx.AsyncClient(base_url=stage.stack.url, timeout=60) as api:
            with contextlib.suppress(httpx.TransportError):
                await api.get("/tasks")
    finally:
        await frozen


async def _locked(stage: Stage, random: Random) -> None:
    path = stage.stack.data_dir if stage.disk is None else stage.disk
    seconds = random.uniform(2, 6)

    def lock() -> None:
        connection = sqlite3.connect(path / DATABASE, timeout=20, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    try:
        await asyncio.to_thread(lock)
    except sqlite3.OperationalError as error:
        raise NotFired(f"the database could not be locked: {error}") from None


async def _disk_full(stage: Stage, random: Random) -> None:
    if stage.disk is None:
        raise NotFired("no disk of our own: that takes root")
    filler = stage.disk / "filler"

    def fill() -> None:
        descriptor = os.open(filler, os.O_CREAT | os.O_WRONLY)
        try:
            size = 0
            # The engine takes some of what is left at the same time.
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(descriptor, size, PIECE_BYTES)
                    size += PIECE_BYTES
        finally:
            os.close(descriptor)

    try:
        await asyncio.to_thread(fill)
        await asyncio.sleep(random.uniform(3, 6))
    finally:
        filler.unlink(missing_ok=True)


async def _clock(stage: Stage, _: Random) -> None:
    if stage.clock is None:
        raise NotFired("no libfaketime")
    for offset in CLOCK_JUMPS:
        stage.clock.write_text(offset + "\n")
        await asyncio.sleep(3)


async def _descriptors(stage: Stage, _: Random) -> None:
    """The second API may open no further connection for a while."""
    pid = stage.second_api.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - counted, not opened
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + DESCRIPTORS_LEFT, before[1]))
    try:
        await asyncio.sleep(4)
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def _cut_off(stage: Stage, random: Random) -> None:
    before = stage.engine_link.stalls
    with stage.engine_link.stalled():
        await asyncio.sleep(random.uniform(3, PAST_HEARTBEAT_SECONDS))
    if stage.engine_link.stalls == before:
        raise NotFired("nothing was on its way")


async def _link_reset(stage: Stage, random: Random) -> None:
    before = stage.engine_link.cuts
    for _ in range(3):
        stage.engine_link.cut()
        await asyncio.sleep(random.uniform(0.2, 2))
    if stage.engine_link.cuts == before:
        raise NotFired("there was no connection")


async def _link_slow(stage: Stage, random: Random) -> None:
    with stage.engine_link.slowed(random.uniform(0.05, 0.3)):
        await asyncio.sleep(5)


async def _agent_killed(stage: Stage, random: Random) -> None:
    part = stage.agents[random.choice(sorted(stage.agents))]
    await strike(part)
    await asyncio.sleep(random.uniform(0, 4))
    await part.back()


async def _agent_frozen(stage: Stage, random: Random) -> None:
    await freeze(stage.agents[random.choice(sorted(stage.agents))], random.uniform(2, 8))


async def _all_agents_down(stage: Stage, random: Random) -> None:
    await asyncio.gather(*(strike(each) for each in stage.agents.values()))
    await asyncio.sleep(random.uniform(4, 8))
    await asyncio.gather(*(each.back() for each in stage.agents.values()))


async def _broker_killed(stage: Stage, random: Random) -> None:
    broker = _broker(stage)
    await asyncio.to_thread(broker.kill)
    await asyncio.sleep(random.uniform(0, 3))
    await asyncio.to_thread(broker.start)


async def _broker_frozen(stage: Stage, random: Random) -> None:
    broker = _broker(stage)
    if broker.process is None:
        raise NotFired("it is not there")
    # RabbitMQ is a child of a shell script, in a group of its own.
    send = os.killpg if isinstance(broker, RabbitServer) else os.kill
    send(broker.process.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(random.uniform(2, 8))
    finally:
        send(broker.process.pid, signal.SIGCONT)


async def _broker_cut(stage: Stage, random: Random) -> None:
    if stage.broker_link is None:
        raise NotFired("there is no broker")
    before = stage.broker_link.cuts
    with stage.broker_link.refusing():
        await asyncio.sleep(random.uniform(1, 6))
    if stage.broker_link.cuts == before:
        raise NotFired("there was no connection")


def _broker(stage: Stage) -> RabbitServer | RedisServer:
    if stage.broker is None:
        raise NotFired("there is no broker")
    return stage.broker


async def _receiver_down(stage: Stage, random: Random) -> None:
    """Answers of the receiver for some seconds: errors, redirects, hanging, resets."""
    odd = (Reply(status=503), Reply(status=302, headers={"Location": "/"}), Reply(reset=True))
    before = stage.receiver.failed
    stage.receiver.down = random.choice((*odd, Reply(delay=5, status=500)))
    try:
        await asyncio.sleep(random.uniform(2, 6))
    finally:
        stage.receiver.down = None
    if stage.receiver.failed == before:
        raise NotFired("nobody called it")


async def _drained(stage: Stage, random: Random) -> None:
    """An operator drains an agent, and resumes it."""
    await _ordered(stage, "drain")
    await asyncio.sleep(random.uniform(1, 5))
    await _ordered(stage, "resume")


async def _tripped(stage: Stage, random: Random) -> None:
    """An operator holds the breakers open, and resets them."""
    await _ordered(stage, "trip")
    await asyncio.sleep(random.uniform(1, 5))
    await _ordered(stage, "reset")


async def _reconfigured(stage: Stage, random: Random) -> None:
    """An operator changes the configuration of running processes, and takes it back."""
    path, log = stage.stack.config_path, stage.stack.output
    good, reloads = path.read_text(), log.read_text().count(RELOADED)
    changed = json.loads(good)
    changed["agents"]["metered"]["rate_limit"]["burst"] = random.randint(1, 5)
    try:
        path.write_text(json.dumps(changed, indent=1))

        async def taken_over() -> bool:
            return log.read_text().count(RELOADED) > reloads

        await eventually(taken_over, 60, "a new configuration")
    except AssertionError:
        raise NotFired("nobody took it over within a minute") from None
    finally:
        path.write_text(good)


async def _ordered(stage: Stage, order: str) -> None:
    """Repeated until it is carried out: an agent must not stay drained."""
    async with httpx.AsyncClient(base_url=stage.stack.url, timeout=30) as api:

        async def carried_out() -> bool:
            with contextlib.suppress(httpx.TransportError):
                body = {"reason": "the fault suite"}
                return (await api.post(f"/agents/plain/{order}", json=body)).is_success
            return False

        await eventually(carried_out, 180, f"{order} of the agent")


PRODUCT, SURROUNDINGS = Lane.PRODUCT, Lane.SURROUNDINGS
FAULTS = (
    Fault("1", "worker killed mid-call", PRODUCT, _killed_mid_call("worker"), short=True),
    Fault("1", "second worker killed mid-call", PRODUCT, _killed_mid_call("second worker")),
    Fault("2", "worker stopped politely", PRODUCT, _killed("worker", signal.SIGTERM)),
    Fault("2", "second worker stopped politely", PRODUCT, _killed("second worker", signal.SIGTERM)),
    Fault("2", "API stopped politely", PRODUCT, _killed("second api", signal.SIGTERM)),
    Fault("3", "worker frozen past its heartbeat", PRODUCT, _frozen("worker", 11, 15), short=True),
    Fault("4", "API killed", PRODUCT, _killed("api"), short=True),
    Fault("4", "second API killed", PRODUCT, _killed("second api")),
    Fault("4", "API frozen", PRODUCT, _frozen("api", 2, 8)),
    Fault("5", "engine killed", PRODUCT, _killed("engine"), short=True),
    Fault("6", "engine frozen", PRODUCT, _engine_frozen, short=True),
    Fault("7", "database locked", PRODUCT, _locked, short=True),
    Fault("7", "disk full", PRODUCT, _disk_full),
    Fault("8", "clock jumps back and forth", PRODUCT, _clock),
    Fault("28", "no file descriptors left", PRODUCT, _descriptors),
    Fault("18", "receiver of callbacks down", SURROUNDINGS, _receiver_down, short=True),
    Fault("19", "broker killed", SURROUNDINGS, _broker_killed, short=True),
    Fault("19", "broker frozen", SURROUNDINGS, _broker_frozen),
    Fault("19", "connections to the broker reset", SURROUNDINGS, _broker_cut, short=True),
    Fault("23", "agent killed, later back", SURROUNDINGS, _agent_killed, short=True),
    Fault("23", "agent frozen", SURROUNDINGS, _agent_frozen),
    Fault("24", "every agent down", SURROUNDINGS, _all_agents_down, short=True),
    Fault("27", "second pair cut off from the engine", SURROUNDINGS, _cut_off, short=True),
    Fault("27", "connections to the engine reset", SURROUNDINGS, _link_reset),
    Fault("27", "slow connections to the engine", SURROUNDINGS, _link_slow),
    Fault("operator", "configuration changed", SURROUNDINGS, _reconfigured),
    Fault("operator", "agent drained and resumed", SURROUNDINGS, _drained, short=True),
    Fault("operator", "breakers tripped and reset", SURROUNDINGS, _tripped),
)
