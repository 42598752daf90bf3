"""How throughput and cost grow with processes, tasks, waiting tasks and agents, and why.

Four parts; each load is carried out until the results of all its tasks are stored:

- ``processes``: workers x APIs on one machine, in turn and several times, for ``single`` tasks by
  50 connections, ``coalesced`` ones by 100, and by 100 to each API, and for batches of 1,000;
- ``tasks``: what one task costs while more and more go through one engine;
- ``waiting``: what a new task costs while so many others wait;
- ``agents``: what many agents cost, by start, at rest, and with tasks for all of them.

The part ``processes`` also predicts (bench/model.py): the costs that it found with one worker and
one API give the throughput of points that were not used for them.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import uvloop
from rich.console import Console

from bench import crowd, waiting
from bench.agent import SLOW_SECONDS
from bench.loads import EACH, LOADS, SLOW_CONNECTIONS, Run, mix, run, scale_config
from bench.model import Resources, grouped, mixed, predict
from bench.scale_report import show
from bench.stage import agent_process
from bench.topology import Site, Topology, site

PARTS = ("processes", "tasks", "waiting", "agents")
SIZES = {"single": 400, "coalesced": 3000, EACH: 3000, "batch": 8000}
MIX = {"single": 100, "coalesced": 3000}
FEW, FEW_TASKS = "coalesced by 20", 1000
SLOW_TASKS = 4000
CROWD_SIZES = {"single, spread": 100, "batch, spread": 4000}
BASE = Topology(1, 1)

console = Console(stderr=True)


@dataclass(frozen=True)
class Checked:
    """A point that was predicted from the costs of others, and what was measured."""

    load: str
    topology: Topology
    predicted: float
    bound_by: str
    measured: float


def note(found: Run) -> Run:
    """Tell how a run went, and return it."""
    costs = ", ".join(f"{kind} {1000 * cost:.2f}" for kind, cost in found.costs.items())
    console.print(
        f"{found.topology} {found.load}: {found.tasks} in {found.seconds:.1f} s, "
        f"{found.per_second:.0f}/s on {found.cores:.2f} cores; CPU ms a task: {costs}"
    )
    return found


async def processes(topologies: Sequence[Topology], rounds: int) -> dict[str, Any]:
    """The runs of each load in each topology, and the predictions."""
    async with agent_process("--quiet") as agent, site(agent, scale_config(agent.url)) as found:
        await _warm_up(found)
        runs = []
        for number in range(rounds):
            # There and back, so that no topology always comes last.
            for topology in topologies if number % 2 == 0 else reversed(topologies):
                await found.arrange(topology)
                await _warm_up(found)
                runs += [note(await run(found, load, size)) for load, size in SIZES.items()]
        return {"processes": rates(runs), "checks": await _checks(found, runs)}


async def _warm_up(found: Site) -> None:
    for load in SIZES:
        await run(found, load, 100)


async def _checks(found: Site, runs: Sequence[Run]) -> list[Checked]:
    """What was measured of points that the costs of one worker and one API predict."""
    await found.arrange(BASE)
    few = note(await run(found, FEW, FEW_TASKS))
    costs = {load: costs_of(runs, load, BASE) for load in SIZES}
    busy = {load: _busy(runs, load) for load in SIZES}
    checks = [
        check(one, _expected(one, costs, few), busy[one.load])
        for one in runs
        if one.topology != BASE
    ]
    shares = {load: size / sum(MIX.values()) for load, size in MIX.items()}
    share_busy = statistics.mean(busy[load] for load in MIX)
    checks.append(check(note(await mix(found, MIX)), mixed(shares, costs), share_busy))
    for topology in (BASE, Topology(2, 1)):
        await found.arrange(topology)
        slow = note(await run(found, "slow", SLOW_TASKS))
        checks.append(check(slow, costs["batch"], busy["batch"], SLOW_SECONDS))
    return checks


def _busy(runs: Sequence[Run], load: str) -> float:
    """The share of the cores that a load keeps busy with one worker and one API."""
    return statistics.median(one.busy for one in runs if (one.load, one.topology) == (load, BASE))


def _expected(one: Run, costs: dict[str, dict[str, float]], few: Run) -> dict[str, float]:
    """The costs of a load in another topology, where groups may have another size."""
    if one.load not in {"coalesced", EACH}:
        return costs[one.load]
    base = (LOADS["coalesced"].group(BASE.apis), costs["coalesced"])
    size = LOADS[one.load].group(one.topology.apis)
    return grouped((LOADS[FEW].group(BASE.apis), few.costs), base, size)


def check(one: Run, costs: dict[str, float], busy: float, call_seconds: float = 0) -> Checked:
    """What the model says of a run that did not go into the costs."""
    topology = one.topology
    resources = Resources(
        cores=one.cores * busy,
        processes={"worker": topology.workers, "api": topology.apis},
        calls_at_once=SLOW_CONNECTIONS * topology.workers,
        call_seconds=call_seconds,
    )
    prediction = predict(costs, resources)
    return Checked(one.load, topology, prediction.per_second, prediction.bound_by, one.per_second)


def costs_of(runs: Sequence[Run], load: str, topology: Topology) -> dict[str, float]:
    """The median cost of a load's task by kind, in one topology."""
    chosen = [one.costs for one in runs if (one.load, one.topology) == (load, topology)]
    return {kind: statistics.median(each[kind] for each in chosen) for kind in chosen[0]}


def rates(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each load and topology: medians over the rounds, and the spread."""
    keys = dict.fromkeys((one.load, one.topology) for one in runs)
    rows = []
    for load, topology in keys:
        chosen = [one for one in runs if (one.load, one.topology) == (load, topology)]
        per_second = [one.per_second for one in chosen]
        rows.append(
            {
                "load": load,
                "topology": topology,
                "tasks": chosen[0].tasks,
                "per_second": statistics.median(per_second),
                "least": min(per_second),
                "most": max(per_second),
                "busy": statistics.median(one.busy for one in chosen),
                "cores": statistics.median(one.cores for one in chosen),
                "costs": costs_of(runs, load, topology),
            }
        )
    return rows


async def tasks(steps: Sequence[int]) -> list[Run]:
    """Runs of so many coalesced tasks on one engine, with some single ones before and after."""
    async with agent_process("--quiet") as agent, site(agent, scale_config(agent.url)) as found:
        await _warm_up(found)
        first = note(await run(found, "single", SIZES["single"]))
        runs = [note(await run(found, "coalesced", step)) for step in steps]
        return [first, *runs, note(await run(found, "single", SIZES["single"]))]


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The parts that were asked for."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "rounds": options.rounds,
    }
    for part in options.parts:
        console.print(f"[bold]{part}[/bold]")
        if part == "processes":
            found |= await processes(options.topologies, options.rounds)
        elif part == "tasks":
            found[part] = await tasks(options.tasks)
        elif part == "waiting":
            found[part] = await waiting.measure([0, *options.waiting], options.submissions)
        else:
            found[part] = await crowd.measure(options.agents, CROWD_SIZES)
    return found


def plain(value: Any) -> Any:
    """What JSON cannot hold, as it can."""
    if isinstance(value, Topology):
        return str(value)
    if isinstance(value, Run):
        return {**asdict(value), "topology": str(value.topology), "cores": value.cores}
    return {**vars(value)}


def numbers(text: str) -> list[int]:
    """From ``100,1000``."""
    return [int(each) for each in text.split(",")]


def topologies_of(text: str) -> list[Topology]:
    """From ``1x1,2x2``, with one worker and one API in any case."""
    return list(dict.fromkeys([BASE, *map(Topology.parse, text.split(","))]))


def parts_of(text: str) -> list[str]:
    """From ``tasks,agents``.

    Raises:
        ValueError: there is no such part.
    """
    chosen = text.split(",")
    if unknown := set(chosen) - set(PARTS):
        raise ValueError(f"no part: {', '.join(unknown)}")
    return chosen


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m bench.scale --parts tasks --tasks 1000,10000,100000 --json",
    )
    add = parser.add_argument
    add("--parts", type=parts_of, default=list(PARTS), help=f"by default {','.join(PARTS)}")
    add("--topologies", type=topologies_of, default="1x1,2x2,4x4", help="workers x APIs, ...")
    add("--rounds", type=int, default=2, help="of the part processes")
    add("--tasks", type=numbers, default="1000,10000,30000", help="in a row on one engine")
    add("--waiting", type=numbers, default="100,1000,10000", help="how many wait")
    add("--submissions", type=int, default=50, help="of new tasks while others wait")
    add("--agents", type=numbers, default="1,10,100,500", help="how many there are")
    add("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def main() -> None:
    """The command."""
    options = arguments()
    found = uvloop.run(measure(options))
    if options.json:
        print(json.dumps(found, default=plain))
    else:
        show(found)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
