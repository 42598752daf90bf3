"""What processes tell Prometheus, read as it reads it; and Prometheus's own checker, promtool."""

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.stack import Stack

Sample = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Metrics:
    """The samples of some texts, added up."""

    samples: Mapping[Sample, float]
    types: Mapping[str, str]
    """Of each family, by the name that its samples begin with."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Metrics":
        """Parse the texts; the same sample of several is added."""
        samples: defaultdict[Sample, float] = defaultdict(float)
        types = {}
        for text in texts:
            for family in text_string_to_metric_families(text):
                suffix = "_total" if family.type == "counter" else ""
                types[family.name + suffix] = family.type
                for each in family.samples:
                    samples[each.name, frozenset(each.labels.items())] += each.value
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
        return [
            (await client.get(f"http://127.0.0.1:{port}/metrics")).raise_for_status().text
            for port in (stack.metrics_port, stack.metrics_port + 1)
        ]


async def metrics_of(stack: Stack) -> Metrics:
    """The same, added up over both processes."""
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
