"""What a new task costs while others wait: its way to the agent, GET /health, CPU, and memory."""

import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from bench.client import Client
from bench.loads import BATCH, scale_config
from bench.memory import rest
from bench.stage import PAYLOAD, agent_process
from bench.topology import KINDS, Site, site

_WARM_UP = 20
_IDLE_QUEUE = "bench-nobody"

console = Console(stderr=True)


@dataclass(frozen=True)
class Waiting:
    """What was seen while so many tasks waited.

    Args:
        milliseconds: medians: ``start`` is the engine's bare start call, ``submit`` until POST
            /orchestrate is answered, ``dispatch`` until the agent has the call, ``health`` GET
            /health.
        cpu_ms: of one task, by kind of process.
        memory: private megabytes at rest, by kind of process.
    """

    waiting: int
    milliseconds: dict[str, float]
    cpu_ms: dict[str, float]
    memory: dict[str, float]


async def measure(steps: Sequence[int], rounds: int) -> list[Waiting]:
    """What is seen at each number of waiting tasks, which wait for an agent that never answers."""
    async with agent_process() as agent, site(agent, scale_config(agent.url)) as found:
        await _rounds(found, _WARM_UP)
        rows, waiting = [], 0
        for step in steps:
            await _add(found, step - waiting)
            waiting = step
            await rest(found.stack)
            memory = found.memory()
            milliseconds, cpu_ms = await _rounds(found, rounds)
            rows.append(Waiting(waiting, milliseconds, cpu_ms, memory))
            console.print(f"{waiting} waiting: {milliseconds}")
        return rows


async def _add(found: Site, number: int) -> None:
    """Hand in tasks that wait."""
    client = await Client.connect(found.stack.url)
    for done in range(0, number, BATCH):
        body = [{"pattern": "wait", "payload": PAYLOAD}] * min(BATCH, number - done)
        answer = await client.request("POST", "/orchestrate/batch", body)
        if "batch_id" not in answer:
            raise ValueError(f"a batch was not accepted: {answer}")
    client.close()


async def _rounds(found: Site, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of each kind, in turn, and CPU milliseconds of a task."""
    api = await Client.connect(found.stack.url)
    times: dict[str, list[float]] = {}
    spent = dict.fromkeys(KINDS, 0.0)

    async def note(kind: str, work: Callable[[], Awaitable[object]]) -> None:
        began = time.perf_counter()
        await work()
        times.setdefault(kind, []).append(1000 * (time.perf_counter() - began))

    for _ in range(rounds):
        await note("start", lambda: _start(found))
        await note("health", lambda: api.request("GET", "/health"))
        before = found.usage()
        submitted, dispatched = await _task(found, api)
        after = found.usage()
        times.setdefault("submit", []).append(submitted)
        times.setdefault("dispatch", []).append(dispatched)
        for kind in KINDS:
            spent[kind] += 1000 * (after.own[kind] - before.own[kind]) / rounds
    api.close()
    medians = {kind: round(statistics.median(values), 2) for kind, values in times.items()}
    return medians, {kind: round(value, 2) for kind, value in spent.items()}


async def _start(found: Site) -> None:
    await found.engine.start_workflow(
        "Nobody", PAYLOAD, id=str(uuid.uuid4()), task_queue=_IDLE_QUEUE
    )


async def _task(found: Site, api: Client) -> tuple[float, float]:
    """Milliseconds until a task was accepted, and until its call arrived; waits for its end."""
    began = time.monotonic_ns()
    task = await api.request("POST", "/orchestrate", {"pattern": "work", "payload": PAYLOAD})
    submitted = time.monotonic_ns() - began
    dispatched = await found.agent.arrival() - began
    await api.request("GET", f"/status/{task['task_id']}", headers="Prefer: wait=30\r\n")
    return submitted / 1e6, dispatched / 1e6
