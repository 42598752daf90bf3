"""The engine's write-ahead log is flushed again and again, whatever becomes of the file."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orchestrator.engine import write_ahead_log
from orchestrator.engine.write_ahead_log import Flusher
from tests.support.page_cache import needs_unwritten_pages, unwritten_pages
from tests.support.stack import eventually

PAGE = 4096
MOMENT = 0.005


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the log; it is not there yet."""
    return tmp_path / "engine.sqlite-wal"


@pytest.fixture
def flusher(tmp_path: Path) -> Iterator[Flusher]:
    """Of the log's database; not started."""
    flusher = Flusher(tmp_path / "engine.sqlite")
    yield flusher
    flusher.stop()


class Flushes:
    """The flushes that are asked for, by the file; they may be made to fail."""

    def __init__(self) -> None:
        self.files: list[int] = []
        self.error: int | None = None

    def __call__(self, descriptor: int) -> None:
        """Note it; fail if it is to."""
        self.files.append(os.fstat(descriptor).st_ino)
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))

    async def reach(self, number: int) -> None:
        """Wait until there are so many."""

        async def there_are() -> bool:
            return len(self.files) >= number

        await eventually(there_are, what=f"{number} flushes")


class Rounds(threading.Event):
    """A stop that counts how often it is waited for, which is once a round, and never for long."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def wait(self, timeout: float | None = None) -> bool:
        """For a moment at most."""
        self.number += 1
        return super().wait(min(timeout or MOMENT, MOMENT))

    async def pass_by(self, more: int = 10) -> None:
        """Let some go by."""
        end = self.number + more

        async def gone() -> bool:
            return self.number > end

        await eventually(gone, what="rounds")


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> Flushes:
    """In place of the system's."""
    flushes = Flushes()
    monkeypatch.setattr(write_ahead_log, "_flush", flushes)
    return flushes


@pytest.fixture
def rounds(flusher: Flusher) -> Rounds:
    """Those of the flusher, and many of them."""
    rounds = Rounds()
    flusher._stopping = rounds
    return rounds


def test_the_system_flushes() -> None:
    """What the other tests replace or cannot see everywhere."""
    assert write_ahead_log._flush is getattr(os, "fdatasync", os.fsync)


async def test_what_is_written_reaches_the_disk_soon(path: Path, flusher: Flusher) -> None:
    """By itself the system takes half a minute; again, when more comes."""
    needs_unwritten_pages(path.parent)
    flusher.start()
    for _ in range(3):
        _write(path, 100)

        async def on_disk() -> bool:
            return unwritten_pages(path) == 0

        await eventually(on_disk, 5)


async def test_a_stop_brings_what_is_left(
    path: Path, flusher: Flusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what the engine commits when it ends."""
    needs_unwritten_pages(path.parent)
    monkeypatch.setattr(write_ahead_log, "PAUSE_SECONDS", 600)
    flusher.start()
    _write(path, 100)
    flusher.stop()
    assert 0 == unwritten_pages(path)


async def test_a_log_that_does_not_change_is_left_alone(
    path: Path, flusher: Flusher, flushes: Flushes, rounds: Rounds
) -> None:
    """But for the second time, for what was written in the same moment as the first."""
    _write(path)
    flusher.start()
    await rounds.pass_by()
    assert 2 == len(flushes.files)
    _write(path)
    await rounds.pass_by()
    assert 4 == len(flushes.files)


async def test_a_log_that_is_not_there_is_waited_for(
    path: Path, flusher: Flusher, flushes: Flushes, rounds: Rounds
) -> None:
    """There is nothing to say of it; nor when one has taken another's place."""
    with capture_logs() as logs:
        flusher.start()
        await rounds.pass_by()
        assert [] == flushes.files
        for _ in range(2):
            number = _made_anew(path)
            await rounds.pass_by()
            assert number == flushes.files[-1]
    assert [] == logs


async def test_a_failure_is_told_once_and_tried_again(
    path: Path, flusher: Flusher, flushes: Flushes, rounds: Rounds
) -> None:
    """Without a further change of the log; and a log that has gone is no success."""
    flushes.error = errno.EIO
    _write(path)
    with capture_logs() as logs:
        flusher.start()
        await flushes.reach(3)
        _gone(path)
        await rounds.pass_by()
        assert ["write_ahead_log_not_flushed"] == [entry["event"] for entry in logs]
        flushes.error = None
        _write(path)
        await rounds.pass_by()
    assert ["write_ahead_log_not_flushed", "write_ahead_log_flushes_again"] == [
        entry["event"] for entry in logs
    ]
    assert "Input/output error" == logs[0]["error"]
    assert str(path) == logs[0]["file"]


async def test_a_stop_ends_it(flusher: Flusher, rounds: Rounds) -> None:
    """The thread is gone, where there was one."""
    flusher.start()
    await rounds.pass_by()
    assert "flusher" in {thread.name for thread in threading.enumerate()}
    flusher.stop()
    assert "flusher" not in {thread.name for thread in threading.enumerate()}


def _write(path: Path, pages: int = 1) -> None:
    with path.open("ab") as file:
        file.write(bytes(pages * PAGE))


def _made_anew(path: Path) -> int:
    """An old file stays elsewhere, so that its number is not given to the new one."""
    if path.exists():
        path.rename(path.with_name("old"))
    _write(path)
    return path.stat().st_ino


def _gone(path: Path) -> None:
    path.unlink()
