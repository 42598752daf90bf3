"""The fault suite, for a minute: `make chaos` in small."""

from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.runner import Run, Wish
from tests.chaos.stage import brokers

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

SECONDS = 40.0


@pytest.mark.timeout(1200)
async def test_a_minute_of_faults_breaks_no_promise(tmp_path: Path) -> None:
    """Whatever dies or stands still meanwhile."""
    broker = "redis" if "redis" in brokers() else "none"
    run = Run(Wish(seed=20, seconds=SECONDS, pause=2.0, broker=broker, whole=False))
    await run.carry_out(tmp_path)
    assert [] == report.violations(run)
    assert run.checks
