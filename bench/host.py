"""Runs one subject in a process of its own: orders come by stdin, what was found goes to stdout.

One JSON object a line, both ways. The first answer tells the subject's durability, or why it was
skipped.
"""

import argparse
import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, cast

import uvloop

from bench.processes import cpu_of_trees, memory_of_trees
from bench.subject import MissingError, Opener, Order, Place, Subject

DRIVER = "driver"


def _processes(subject: Subject) -> Mapping[str, Sequence[int]]:
    """Those of the subject, and this one as the driver unless the subject counts it as a part."""
    parts = subject.processes()
    if any(os.getpid() in pids for pids in parts.values()):
        return parts
    return {DRIVER: [os.getpid()], **parts}


def _each(
    subject: Subject, measure: Callable[[Sequence[int], Sequence[int]], float]
) -> dict[str, float]:
    """A reading of each kind; a process counts where it is named, not where it is a child."""
    processes = _processes(subject)
    named = [pid for pids in processes.values() for pid in pids]
    return {kind: measure(pids, named) for kind, pids in processes.items()}


async def measured(subject: Subject, order: Order) -> dict[str, Any]:
    """What an order took, and what it used."""
    stored = await subject.stored_bytes()
    cpu = _each(subject, cpu_of_trees)
    outcome = await subject.run(order)
    spent = {kind: each - cpu.get(kind, 0.0) for kind, each in _each(subject, cpu_of_trees).items()}
    grown = await subject.stored_bytes()
    return {
        **asdict(outcome),
        "cpu": spent,
        "memory": _each(subject, memory_of_trees),
        "database_bytes": None if stored is None or grown is None else grown - stored,
    }


def _opener(name: str) -> Opener:
    """What ``module:function`` names."""
    module, _, function = name.partition(":")
    return cast("Opener", getattr(importlib.import_module(module), function or "opened"))


async def serve(name: str, place: Place, answers: TextIO) -> None:
    """Carry out orders until stdin closes."""
    # A polite end must not leave behind what the subject has started.
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this runs in one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)

    def answer(found: Mapping[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    try:
        async with _opener(name)(place) as subject:
            answer({"durability": subject.durability, "versions": subject.versions})
            while line := await asyncio.to_thread(sys.stdin.readline):
                try:
                    answer(await measured(subject, Order(**json.loads(line))))
                except MissingError as error:
                    answer({"skipped": str(error)})
    except MissingError as error:
        answer({"skipped": str(error)})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", help="module or module:function")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--agent", required=True)
    options = parser.parse_args()
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    uvloop.run(serve(options.subject, Place(options.directory, options.agent), answers))
    # A process that used the engine's client can abort when the interpreter ends.
    os._exit(0)


if __name__ == "__main__":
    main()
