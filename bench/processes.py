"""What processes use, as the kernel counts it."""

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    Args:
        rss: in memory, shared libraries included.
        fair: the same, with each shared page divided among those that have it.
        private: what would be free if it ended.
    """

    rss: int
    fair: int
    private: int


def memory_of(pid: int) -> Memory:
    """A process's memory."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    private = fields["Private_Clean"] + fields["Private_Dirty"]
    return Memory(fields["Rss"], fields["Pss"], private)


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def trees(roots: Sequence[int], apart: Collection[int] = ()) -> list[int]:
    """The processes and all that they have started, without the trees ``apart`` from them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = list(roots)
    for pid in found:
        found += [child for child in children.get(pid, ()) if child not in {*found, *apart}]
    return found


def cpu_of_trees(roots: Sequence[int], apart: Collection[int] = ()) -> float:
    """Seconds that the trees have computed; of processes that have ended nothing is known."""
    return sum(_or_zero(cpu_seconds, pid) for pid in trees(roots, apart))


def memory_of_trees(roots: Sequence[int], apart: Collection[int] = ()) -> float:
    """Bytes that the trees have in memory, each shared page counted once."""
    return sum(_or_zero(lambda pid: memory_of(pid).fair, pid) for pid in trees(roots, apart))


def _or_zero(measure: Callable[[int], float], pid: int) -> float:
    try:
        return measure(pid)
    except (OSError, KeyError):
        # It has ended since it was found.
        return 0


def _stat(pid: int) -> list[str]:
    """The fields from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
