"""Taking over a changed configuration while the process runs."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import Settings
from orchestrator.errors import ConfigurationError, StartupError
from orchestrator.live_settings import LiveSettings
from orchestrator.telemetry import metrics
from tests.support.stack import ROOT, eventually
from tests.unit.orchestrator.config_text import AGENT

LOOK_SECONDS = 0.02
BATCHES = AGENT + "limits: {max_batch_bytes: 2048}\n"


class Taken:
    """A process's parts: they take over all, or refuse all."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.settings: list[Settings] = []

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """As the parts of API and worker do."""
        if self.refusal is not None:
            raise self.refusal
        return lambda: self.settings.append(settings)


def lines(capsys: pytest.CaptureFixture[str]) -> str:
    """What was logged."""
    return capsys.readouterr().out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file that the process starts with."""
    file = tmp_path / "config.yaml"
    file.write_text(AGENT)
    return file


def replace(path: Path, text: str) -> None:
    """Put another file in its place, with the same time."""
    other = path.with_suffix(".new")
    other.write_text(text)
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    other.replace(path)


def live(path: Path | None) -> LiveSettings:
    """Its settings, looked at often."""
    return LiveSettings(path, {}, LOOK_SECONDS)


def test_a_wrong_file_is_an_error_at_the_start(path: Path) -> None:
    """There is nothing to go on with."""
    path.write_text("agents: 5")
    with pytest.raises(ConfigurationError):
        live(path)


def test_a_change_is_taken_over(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what has changed is said, with the version that holds now."""
    settings, parts = live(path), Taken()
    before = settings.version
    path.write_text(BATCHES)

    assert settings.reload(parts.prepare)
    assert [2048] == [each.limits.max_batch_bytes for each in parts.settings]
    assert settings.now is parts.settings[0]
    said = lines(capsys)
    assert "config_reloaded" in said
    assert "limits.max_batch_bytes" in said
    assert settings.version != before


def test_a_wrong_file_changes_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The problem is said as at a start, and a metric tells of it until the file is right."""
    settings, parts = live(path), Taken()
    before = settings.now
    path.write_text(AGENT + "limits: {max_batch_bytes: few}\n")

    assert not settings.reload(parts.prepare)
    assert ([], before) == (parts.settings, settings.now)
    said = lines(capsys)
    assert "config_refused" in said
    assert "config.yaml:2: limits.max_batch_bytes: found" in said
    assert 0 == metrics._config_well._value.get()

    path.write_text(BATCHES)
    assert settings.reload(parts.prepare)
    assert 1 == metrics._config_well._value.get()


@pytest.mark.parametrize("refusal", [StartupError("no secret"), ValueError("unexpected")])
def test_what_the_parts_refuse_changes_nothing(
    refusal: Exception, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether they know why or not."""
    settings = live(path)
    path.write_text(BATCHES)
    assert not settings.reload(Taken(refusal).prepare)
    assert str(refusal) in lines(capsys)
    assert settings.now.limits.max_batch_bytes != 2048


def test_what_needs_a_restart_is_said_with_its_reason(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And stays as it runs, beside what does not need it."""
    settings, parts = live(path), Taken()
    path.write_text(BATCHES + "agent: {port: 9}\n")
    assert settings.reload(parts.prepare)
    assert 8000 == settings.now.agent.port
    said = lines(capsys)
    assert "config_needs_restart" in said
    assert "agent.port" in said
    assert "are taken at the start" in said


async def test_a_changed_file_is_seen(path: Path) -> None:
    """Once it is whole: the same at two looks."""
    settings, parts = live(path), Taken()
    running = asyncio.create_task(settings.run(parts.prepare))
    replace(path, BATCHES)

    async def taken() -> bool:
        return bool(parts.settings)

    await eventually(taken)
    running.cancel()
    assert 2048 == settings.now.limits.max_batch_bytes


async def test_a_file_that_is_replaced_is_seen(path: Path) -> None:
    """By another of the same size, as editors and Kubernetes do it."""
    settings, parts = live(path), Taken()
    running = asyncio.create_task(settings.run(parts.prepare))
    replace(path, AGENT.replace("reader", "writer"))

    async def taken() -> bool:
        return bool(parts.settings)

    await eventually(taken)
    running.cancel()
    assert ["writer"] == list(settings.now.agents)


async def test_an_unchanged_file_is_read_at_sighup(path: Path) -> None:
    """Whoever sends it hears that it has been read."""
    settings, parts = LiveSettings(path, {}, look_seconds=3600), Taken()
    settings.reload_on_hangup()
    running = asyncio.create_task(settings.run(parts.prepare))
    try:
        os.kill(os.getpid(), signal.SIGHUP)

        async def taken() -> bool:
            return bool(parts.settings)

        await eventually(taken)
    finally:
        running.cancel()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


def test_without_a_file_there_are_the_defaults() -> None:
    """Reading nothing again changes nothing."""
    settings = live(None)
    before = settings.now
    assert settings.reload(Taken().prepare)
    assert before == settings.now


_IN_TERMINAL = """
import asyncio, fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from orchestrator.live_settings import on_hangup
async def main():
    on_hangup(lambda: print("again", flush=True))
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def _read_until(terminal: int, word: bytes) -> None:
    found = b""
    while word not in found:
        found += os.read(terminal, 1024)


def test_a_closed_terminal_ends_what_ran_in_it() -> None:
    """It sends the same signal as who wants the configuration read again."""
    terminal, inside = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _IN_TERMINAL],
        cwd=ROOT,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    ) as process:
        os.close(inside)
        _read_until(terminal, b"ready")
        process.send_signal(signal.SIGHUP)
        _read_until(terminal, b"again")
        os.close(terminal)
        assert -signal.SIGTERM == process.wait(60)
