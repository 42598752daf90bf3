"""What processes tell Prometheus, read as it reads it; and Prometheus's own checker, promtool."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.stack import ROOT, Stack

Sample = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Metrics:
    """The samples of some texts, taken together."""

    samples: Mapping[Sample, float]
    types: Mapping[str, str]
    """Of each family, by the name that its samples begin with."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Metrics":
        """Parse the texts; counts are added, of a gauge of several the largest is taken."""
        samples: defaultdict[Sample, float] = defaultdict(float)
        types = {}
        for text in texts:
            for family in text_string_to_metric_families(text):
                suffix = "_total" if family.type == "counter" else ""
                types[family.name + suffix] = family.type
                for each in family.samples:
                    sample = each.name, frozenset(each.labels.items())
                    if family.type == "gauge":
                        samples[sample] = max(samples.get(sample, each.value), each.value)
                    else:
                        samples[sample] += each.value
        return cls(samples, types)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have at least these labels."""
        wanted = labels.items()
        return sum(
            value for (known, its), value in self.samples.items() if known == name and wanted <= its
        )

    def labels(self, family: str) -> set[str]:
        """The names of the labels that a family's samples have, but for a histogram's own."""
        names = {family, f"{family}_bucket", f"{family}_count", f"{family}_sum"}
        found = {label for (name, its) in self.samples if name in names for label, _ in its}
        return found - {"le"}


async def texts_of(stack: Stack) -> list[str]:
    """What the ports of API and worker say."""
    async with httpx.AsyncClient(timeout=20) as client:
        return [(await client.get(url)).raise_for_status().text for url in stack.metrics_urls]


async def metrics_of(stack: Stack) -> Metrics:
    """The same, of all processes."""
    return Metrics.of(await texts_of(stack))


def promtool(*arguments: str, said: str = "", directory: Path | None = None) -> str:
    """Have promtool check something; fails with its words unless it finds nothing."""
    program = shutil.which("promtool")
    if program is None:
        missing = "there is no promtool here; install it: apt install prometheus"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    done = subprocess.run(
        [program, *arguments],
        input=said,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def as_json(text: Metrics) -> dict[str, Any]:
    """The JSON that the gauges amount to."""
    by_agent = {dict(its)["agent"] for name, its in text.samples if name.endswith("has_worker")}
    words = ("closed", "half_open", "open")
    return {
        "total_tasks": text.value("orchestrator_tasks"),
        "dead_letters": text.value("orchestrator_dead_letters"),
        "active_tasks": text.value("orchestrator_active_tasks"),
        **{
            f"{status}_tasks": text.value("orchestrator_tasks", status=status)
            for status in ("completed", "failed", "cancelled")
        },
        "agents_status": {
            agent: words[int(text.value("orchestrator_circuit_breaker_state", agent=agent))]
            for agent in by_agent
        },
        "queue_sizes": {
            f"priority_{level}": text.value("orchestrator_queue_size", priority=str(level))
            for level in range(1, 6)
        },
        "agent_queue_sizes": {
            agent: {
                f"priority_{level}": text.value(
                    "orchestrator_agent_queue_size", agent=agent, priority=str(level)
                )
                for level in range(1, 6)
            }
            for agent in by_agent
        },
    }


def page() -> str:
    """docs/metrics.md."""
    return Path(ROOT / "docs" / "metrics.md").read_text()


def table() -> set[tuple[str, str, frozenset[str]]]:
    """Name, type and labels of each metric that is documented as ours."""
    rows = re.findall(r"^\| `(orchestrator_\w+)` \| (\w+) \|([^|]*)\|", page(), re.MULTILINE)
    return {(name, kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in rows}
