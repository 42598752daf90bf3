"""The fault suite, for half a minute: `make chaos` in small."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.runner import Run, Wish
from tests.chaos.stage import brokers
from tests.support.stack import ROOT, children, command_line, ended, eventually

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.own_topology("it starts its own"),
]

SECONDS = 25.0


@pytest.mark.timeout(1200)
async def test_half_a_minute_of_faults_breaks_no_promise(tmp_path: Path) -> None:
    """Whatever dies or stands still meanwhile."""
    broker = "redis" if "redis" in brokers() else "none"
    run = Run(Wish(seed=20, seconds=SECONDS, pause=2.0, broker=broker, whole=False))
    await run.carry_out(tmp_path)
    assert [] == report.violations(run)
    assert run.checks


async def test_it_ends_at_once_when_it_is_told_to(tmp_path: Path) -> None:
    """Its processes too; one line says how to repeat it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", "--short", "--seed", "7", "--broker", "none"),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    async def agent() -> bool:
        return any("chaos.agent" in command_line(each) for each in children(process.pid))

    await eventually(agent, 90, "its first agent")
    started = children(process.pid)
    process.send_signal(signal.SIGTERM)
    output, errors = await process.communicate()
    assert (143, b"") == (process.returncode, output)
    *before, last = errors.decode().splitlines()
    assert last.startswith("Ended by SIGTERM")
    assert "--seed 7 --seconds 600 --broker none" in last
    assert not any("Traceback" in each for each in before)
    await ended(started)
    assert [] == [*await asyncio.to_thread(tmp_path.glob, "*")]
