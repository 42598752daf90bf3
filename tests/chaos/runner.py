"""One run: the program and the faults at the same time, then healing, settling and checking."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos import invariants
from tests.chaos.faults import FAULTS, Fault, Lane
from tests.chaos.ledger import Ledger
from tests.chaos.parts import NotFired, caller_by_port, rss
from tests.chaos.patience import Patient, Stuck
from tests.chaos.program import Client
from tests.chaos.replies import Kind
from tests.chaos.settling import Settled, look, settle
from tests.chaos.stage import Stage, staged

WATCH_PAUSE_SECONDS = 0.2
RECORDS_SECONDS = 0.1
MEMORY_SECONDS = 2.0


@dataclass(frozen=True)
class Wish:
    """What a run is to be.

    Args:
        seed: of its chance.
        seconds: how long the program and the faults go on.
        clients: how many at once.
        pause: the most seconds between two faults of a lane.
        broker: rabbitmq, redis or none.
        whole: every fault; else those that a minute has room for.
    """

    seed: int
    seconds: float
    clients: int = 5
    pause: float = 3.0
    broker: str = "none"
    whole: bool = True


@dataclass
class Run:
    """A run as it goes, and what came of it."""

    wish: Wish
    ledger: Ledger = field(default_factory=Ledger)
    stage: Stage | None = None
    phase: str = "starting"
    fired: Counter[Fault] = field(default_factory=Counter)
    not_fired: dict[Fault, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    most_memory: dict[str, int] = field(default_factory=dict)
    slain: int = 0
    checks: list[invariants.Check] = field(default_factory=list)
    settled: Settled | None = None

    async def carry_out(self, directory: Path) -> None:
        """Do it all; what was found is in the ledger's violations and in the checks."""
        began = time.monotonic()
        async with staged(directory, self.wish.broker, whole=self.wish.whole) as stage:
            self.stage = stage
            self.seconds["start"] = time.monotonic() - began
            patient = Patient(stage.urls, self.ledger)
            try:
                await self._act(stage, patient)
            except* (Stuck, AssertionError) as group:
                for error in _leaves(group):
                    self.ledger.violate("stuck", str(error))
            finally:
                await patient.close()
        if self.settled is not None:
            self.checks = invariants.check(self._facts(stage, self.settled))

    def _facts(self, stage: Stage, settled: Settled) -> invariants.Facts:
        stage.records.read()
        return invariants.Facts(
            ledger=self.ledger,
            settled=settled,
            records=stage.records,
            told=stage.receiver.told,
            unsigned=stage.receiver.unsigned,
            agent_deaths=dict(
                death for agent in stage.agents.values() for death in agent.deaths.items()
            ),
            engine_deaths=sum(
                n for fault, n in self.fired.items() if fault.name == "engine killed"
            ),
            most_memory=self.most_memory,
            faults=self.fired.total(),
        )

    async def _act(self, stage: Stage, patient: Patient) -> None:
        with self._timed("load"):
            await self._load(stage, patient)
        with self._timed("settle"):
            self.phase = "settling"
            async with _beside(self._read(stage), self._watch_memory(stage)):
                self.settled = await settle(stage, self.ledger, patient)
        self.phase = "checking"

    async def _load(self, stage: Stage, patient: Patient) -> None:
        self.phase = "load and faults"
        until = time.monotonic() + self.wish.seconds
        clients = [
            Client(stage, self.ledger, patient, Random(f"{self.wish.seed}/client {number}"))  # noqa: S311
            for number in range(self.wish.clients)
        ]
        beside = (self._read(stage), self._watch(patient), self._watch_memory(stage))
        async with _beside(*beside), asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(until))
            for lane in Lane:
                group.create_task(self._break(stage, lane, until))

    async def _break(self, stage: Stage, lane: Lane, until: float) -> None:
        """One fault of the lane after another, each as often as the others."""
        chance = Random(f"{self.wish.seed}/{lane}")  # noqa: S311 - has to be repeatable
        faults = [each for each in FAULTS if each.lane is lane and (self.wish.whole or each.short)]
        while time.monotonic() < until:
            chance.shuffle(faults)
            for fault in faults:
                await asyncio.sleep(chance.uniform(0.5, self.wish.pause))
                if time.monotonic() >= until:
                    return
                await self._inject(fault, stage, chance)

    async def _inject(self, fault: Fault, stage: Stage, chance: Random) -> None:
        try:
            await fault.inject(stage, chance)
        except NotFired as error:
            self.not_fired[fault] = str(error)
        else:
            self.fired[fault] += 1

    async def _read(self, stage: Stage) -> None:
        """Follow the agents' records, and kill who makes a call that asks for it."""
        while True:
            for begun in stage.records.read():
                if begun.kind == Kind.SLAY:
                    self._slay(stage, begun.peer)
            await asyncio.sleep(RECORDS_SECONDS)

    def _slay(self, stage: Stage, port: int) -> None:
        callers = stage.callers()
        pid = caller_by_port(port, list(callers))
        if pid is None or callers[pid].name not in {"worker", "api"} or not callers[pid].may_die():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            callers[pid].died()
            self.slain += 1

    async def _watch(self, patient: Patient) -> None:
        """Read the status of one task after another; a final one has to stay as it is."""
        chance = Random(f"{self.wish.seed}/watch")  # noqa: S311
        while True:
            known = list(self.ledger.by_id.values())
            if known:
                await look(patient, self.ledger, chance.choice(known))
            await asyncio.sleep(WATCH_PAUSE_SECONDS)

    async def _watch_memory(self, stage: Stage) -> None:
        while True:
            for name in ("worker", "api", "engine", "second worker", "second api"):
                with contextlib.suppress(LookupError):
                    used = rss(stage.parts[name].pid)
                    self.most_memory[name] = max(self.most_memory.get(name, 0), used)
            await asyncio.sleep(MEMORY_SECONDS)

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] = time.monotonic() - began


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        yield from _leaves(each) if isinstance(each, BaseExceptionGroup) else (each,)


@contextlib.asynccontextmanager
async def _beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that goes on as long as the block does; what breaks it is raised at the end."""
    tasks = [asyncio.create_task(each) for each in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
