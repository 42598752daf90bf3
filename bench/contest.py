"""Who is compared, and how an order is given to one of them."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.children import end_of
from bench.subject import MissingError, Order

PEERS_PYTHON = Path(".venv-bench") / "bin" / "python"
PEER_MANY = "pgqueuer many"
"""The mode of a peer to which all tasks are handed in at once."""
_LONGEST_ANSWER = 64 * 1024 * 1024


@dataclass(frozen=True)
class Mode:
    """One way to hand in tasks.

    Args:
        name: of the mode.
        share: how many tasks for each of ``--tasks``, so that a round takes seconds.
        timed: whether the way to the agent is timed, one task at a time.
    """

    name: str
    share: float = 1.0
    timed: bool = True


@dataclass(frozen=True)
class Contestant:
    """One subject in one of its modes; peers run in a venv of their own."""

    subject: str
    mode: Mode
    peer: bool = False


def _ours(mode: Mode) -> Contestant:
    return Contestant("bench.subjects.ours", mode)


def _peer(name: str, mode: Mode) -> Contestant:
    return Contestant(f"bench.peers.{name}", mode, peer=True)


CONTESTANTS = (
    Contestant("bench.subjects.empty_route", Mode("empty route", 30, timed=False)),
    Contestant("bench.subjects.floor", Mode("floor eager", timed=False)),
    Contestant("bench.subjects.floor", Mode("floor light", timed=False)),
    Contestant("bench.subjects.floor", Mode("floor", timed=False)),
    Contestant("bench.subjects.textbook:on_file", Mode("textbook")),
    Contestant("bench.subjects.textbook:in_memory", Mode("textbook in memory")),
    _ours(Mode("queued")),
    _ours(Mode("inline")),
    _ours(Mode("coalesced", 10)),
    _ours(Mode("batch", 30, timed=False)),
    Contestant(
        "bench.subjects.ours:with_two_workers", Mode("batch by two workers", 30, timed=False)
    ),
    _peer("pgqueuer", Mode("pgqueuer", 7)),
    _peer("pgqueuer", Mode(PEER_MANY, 20, timed=False)),
    _peer("restate", Mode("restate", 7)),
    _peer("celery", Mode("celery", 4)),
    _peer("procrastinate", Mode("procrastinate", 4)),
    _peer("dbos", Mode("dbos", 2)),
    _peer("prefect", Mode("prefect", 0.3)),
)
PEER_MODES = tuple(each.mode.name for each in CONTESTANTS if each.peer)
PEER_SINGLES = tuple(name for name in PEER_MODES if name != PEER_MANY)
"""Those to which tasks are handed in one by one."""


class Host:
    """A process that runs one subject."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.durability = self.versions = ""

    async def begin(self) -> None:
        """Wait until the subject runs."""
        said = await self._answer()
        self.durability, self.versions = said["durability"], said["versions"]

    async def run(self, order: Order) -> dict[str, Any]:
        """What an order took and used.

        Raises:
            MissingError: the subject cannot do it here.
            RuntimeError: it failed.
        """
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a subject failed:\n{end_of(self._log)}")
        found: dict[str, Any] = json.loads(line)
        if "skipped" in found:
            raise MissingError(found["skipped"])
        return found


@asynccontextmanager
async def hosted(contestant: Contestant, directory: Path, agent: str) -> AsyncIterator[Host]:
    """The subject in a process of its own, for the time of the block.

    Raises:
        MissingError: the subject cannot run here.
    """
    python = PEERS_PYTHON if contestant.peer else Path(sys.executable)
    if not python.exists():
        raise MissingError("there is no .venv-bench (make bench builds it)")
    log = directory / "host.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", "bench.host", contestant.subject),
            *("--directory", directory, "--agent", agent),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=_LONGEST_ANSWER,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    assert process.stdin is not None  # noqa: S101 - it was asked for
    try:
        host = Host(process, log)
        await host.begin()
        yield host
    finally:
        process.stdin.close()
        await process.wait()
