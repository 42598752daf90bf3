"""What the agents noted, read as it grows: calls in flight, who was called, how it was answered."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Span = tuple[float, float]


@dataclass(frozen=True)
class Begun:
    """One call as an agent saw it begin; ``at`` is of the machine's monotonic clock."""

    call: str
    at: float
    key: str
    number: int
    agent: str
    kind: str
    task_id: str | None
    peer: int


@dataclass
class Records:
    """All agents' records."""

    paths: list[Path] = field(default_factory=list)
    begun: list[Begun] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)
    forbidden: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    by_number: dict[int, list[Begun]] = field(default_factory=lambda: defaultdict(list))
    _offsets: dict[Path, int] = field(default_factory=dict)

    def read(self) -> list[Begun]:
        """Take in what was written since; the calls that have begun."""
        before = len(self.begun)
        for path in self.paths:
            if path.exists():
                self._read(path)
        return self.begun[before:]

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offsets[path] = self._offsets.get(path, 0) + len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        if event["what"] == "begin":
            names = ("call", "at", "key", "number", "agent", "kind", "task_id", "peer")
            begun = Begun(**{name: event[name] for name in names})
            self.begun.append(begun)
            self.by_number[begun.number].append(begun)
            self.kinds[begun.kind] += 1
        elif event["what"] == "end":
            self.ended[event["call"]] = event["at"]
        else:
            self.forbidden += 1

    def in_flight(self) -> int:
        """How many calls have begun and not ended; those of killed agents count for ever."""
        return len(self.begun) - len(self.ended)

    def spans(self, agent: str, deaths: Mapping[int, float], longest: float) -> list[Span]:
        """When each call of an agent began and ended.

        Args:
            agent: whose.
            deaths: when the agents' processes were ended, which ends their calls.
            longest: seconds after which whoever called has given up.
        """
        return [
            (each.at, min(self._end(each, deaths), each.at + longest))
            for each in self.begun
            if each.agent == agent
        ]

    def _end(self, begun: Begun, deaths: Mapping[int, float]) -> float:
        process = int(begun.call.partition(".")[0])
        return self.ended.get(begun.call, deaths.get(process, math.inf))


def most_at_once(spans: Iterable[Span], lasting: float) -> int:
    """The highest number of spans that overlap for so many seconds without a pause."""
    turns = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    now, since, most = 0, list[float](), 0
    for at, change in turns:
        if change < 0:
            began = since.pop()
            if at - began >= lasting:
                most = max(most, now)
        else:
            since.append(at)
        now += change
    return most


def most_in(begins: Sequence[float], seconds: float) -> int:
    """The most moments that lie within so many seconds."""
    moments = sorted(begins)
    most = first = 0
    for last, at in enumerate(moments):
        while moments[first] < at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
