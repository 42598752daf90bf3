"""The product beside the engine's floor, the textbook service and peers, in one run.

Every contestant calls the same agent with the same payload, and is timed from the first submission
until the last result is stored:

- ``floor``, ``floor eager``: an empty workflow on the tuned engine, without and with eager start;
  ``floor light``: eager, and on lists as the product keeps them;
- ``textbook``, ``textbook in memory``: bench/textbook.py on the untuned engine;
- ``queued``, ``inline``, ``coalesced``: POST /orchestrate; ``batch``: one POST /orchestrate/batch,
  which `orchestrator worker` beside it may share (``batch by two workers``);
- the peers in bench/peers, as their documentation recommends for durable calls, one task at a time;
- ``pgqueuer many``: all tasks in one statement;
- ``empty route``: a FastAPI route that does nothing.

They take turns in each round, and each is started anew, so that none runs beside another, nor
beside what another has left to be done. The way to the agent is timed one task at a time; under
load it is the mean, from all arrivals and all submissions. Peers need .venv-bench, PostgreSQL,
RabbitMQ and an npm package; one whose needs are not met is skipped.
The ratios of the medians are what counts.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.contest import CONTESTANTS, Contestant, Host, Mode, hosted
from bench.report import show, write
from bench.stage import Agent, agent_process
from bench.subject import MissingError, Order
from bench.summary import summary

_TIMED_PATH = "/timed"
_WARM_UP_SHARE = 0.2
_NO_CALLS = {"empty route", "floor", "floor eager", "floor light"}

console = Console(stderr=True)


@dataclass
class Found:
    """All that was measured: one entry a round by mode, and why modes were skipped."""

    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def note(self, mode: str, entry: dict[str, Any]) -> None:
        """Keep one round."""
        self.rounds.setdefault(mode, []).append(entry)
        rate = entry["tasks"] / entry["seconds"]
        console.print(f"{mode:>20}: {entry['tasks']} in {entry['seconds']:.2f} s, {rate:.0f}/s")

    def skip(self, mode: str, reason: str) -> None:
        """Say once why a mode is left out."""
        if mode not in self.skipped:
            console.print(f"{mode:>20}: skipped: {reason}", markup=False)
        self.skipped[mode] = reason


@dataclass(frozen=True)
class Contest:
    """What is asked of each contestant.

    Args:
        agent: that all call.
        tasks: of a mode with a share of 1.
        connections: how many tasks are handed in at a time.
        timed: tasks whose way to the agent is timed in each round.
    """

    agent: Agent
    tasks: int
    connections: int
    timed: int

    async def round(self, contestant: Contestant, found: Found) -> None:
        """Start one contestant, measure it once, stop it."""
        mode = contestant.mode
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                async with hosted(contestant, Path(directory), self.agent.url) as host:
                    await self._mode(host, mode, found)
            except MissingError as error:
                found.skip(mode.name, str(error))
            except RuntimeError as error:
                # What others do wrong must not lose what was measured; what we do wrong ends it.
                if not contestant.peer:
                    raise
                found.skip(mode.name, f"failed: {str(error).splitlines()[-1]}")

    async def _mode(self, host: Host, mode: Mode, found: Found) -> None:
        await self._order(host, mode, self._number(mode, _WARM_UP_SHARE))
        entry = await self._order(host, mode, self._number(mode, 1))
        entry["dispatch_ms"] = await self._timed(host, mode)
        words = {"durability": host.durability, "versions": host.versions}
        found.note(mode.name, {**entry, **words})

    def _number(self, mode: Mode, share: float) -> int:
        # A batch holds at most 10,000.
        return min(10_000, max(1, round(share * mode.share * self.tasks)))

    async def _order(self, host: Host, mode: Mode, tasks: int) -> dict[str, Any]:
        calls, arrivals = await self.agent.tally()
        entry = await host.run(Order(mode.name, tasks, self.connections))
        calls_then, arrivals_then = await self.agent.tally()
        made = calls_then - calls
        if made != (0 if mode.name in _NO_CALLS else tasks):
            raise ValueError(f"{mode.name}: the agent had {made} calls for {tasks} tasks")
        # The mean does not depend on which call was for which task.
        waited_ns = arrivals_then - arrivals - entry["began_sum_ns"]
        loaded_ms = waited_ns / tasks / 1e6 if mode.timed else None
        return {"tasks": tasks, "loaded_ms": loaded_ms, **entry}

    async def _timed(self, host: Host, mode: Mode) -> list[float]:
        """Milliseconds from a submission until the agent has the call, one task at a time."""
        times = []
        for _ in range(self.timed if mode.timed else 0):
            entry = await host.run(Order(mode.name, 1, 1, _TIMED_PATH))
            times.append((await self.agent.arrival() - entry["began_ns"]) / 1e6)
        return times


async def measure(options: argparse.Namespace) -> Found:
    """All rounds of the modes that were asked for."""
    found = Found()
    async with agent_process("--quiet") as agent:
        contest = Contest(agent, options.tasks, options.connections, options.timed)
        for number in range(options.rounds):
            console.rule(f"Round {number + 1} of {options.rounds}")
            for contestant in CONTESTANTS:
                name = contestant.mode.name
                if name not in found.skipped and (not options.only or name in options.only):
                    await contest.round(contestant, found)
    return found


def _names(text: str) -> set[str]:
    known = {contestant.mode.name for contestant in CONTESTANTS}
    names = {name.strip() for name in text.split(",")}
    if names - known:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(sorted(known))}")
    return names


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m bench.compare --only queued,textbook --rounds 5",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=300, help="of single tasks; fast modes more")
    parser.add_argument("--connections", type=int, default=100, help="tasks handed in at a time")
    parser.add_argument("--timed", type=int, default=20, help="calls timed one by one, each round")
    parser.add_argument("--only", type=_names, metavar="MODE,...", help="of those above")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="for plots and a table")
    options = parser.parse_args()
    found = asyncio.run(measure(options))
    setting = {name: getattr(options, name) for name in ("rounds", "tasks", "connections")}
    told = summary(found.rounds, found.skipped, setting)
    if options.write:
        write(told, options.write)
    if options.json:
        print(json.dumps(told))
    else:
        show(told)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
