"""The agent that tells how the machine below it is doing."""

import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from examples.agents.contract import Answer, Payload, Wish

_MEMORY = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")

Fact = Literal["host", "load", "memory", "disk", "process"]


class InspectionWish(Wish):
    """The facts to look at; all of them by default."""

    facts: list[Fact] = Field(
        default=["host", "load", "memory", "disk", "process"],
        min_length=1,
        max_length=5,
    )


def inspect_host(payload: Payload) -> Answer:
    """Read facts about the host and this process; what the system does not tell is null."""
    wish = InspectionWish.model_validate(payload)
    return {fact: _FACTS[fact]() for fact in wish.facts} | {
        "method": "read from the operating system at the time of the call",
    }


def _host() -> dict[str, Any]:
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}


def _load() -> dict[str, float]:
    minutes = ("1_minute", "5_minutes", "15_minutes")
    return {name: round(load, 2) for name, load in zip(minutes, os.getloadavg(), strict=True)}


def _memory() -> dict[str, int | None]:
    sizes = _kibibytes(_MEMORY)
    return {
        "total_bytes": sizes.get("MemTotal"),
        "available_bytes": sizes.get("MemAvailable"),
    }


def _disk() -> dict[str, int]:
    usage = shutil.disk_usage(Path.cwd())
    return {"total_bytes": usage.total, "free_bytes": usage.free}


def _process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "python": platform.python_version(),
        "cpu_seconds": round(time.process_time(), 3),
        "memory_bytes": _kibibytes(_STATUS).get("VmRSS"),
    }


def _kibibytes(file: Path) -> dict[str, int]:
    """Read lines such as ``MemTotal: 16316412 kB``, as bytes; none where there is no such file."""
    if not file.exists():
        return {}
    rows = (line.split() for line in file.read_text().splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in rows}


_FACTS: dict[Fact, Callable[[], dict[str, Any]]] = {
    "host": _host,
    "load": _load,
    "memory": _memory,
    "disk": _disk,
    "process": _process,
}
