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
from tests.support.page_cache import unwritten_pages
from tests.support.stack import eventually

PAGE = 4096


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A log that is not on the disk yet."""
    path = tmp_path / "engine.sqlite-wal"
    path.write_bytes(bytes(100 * PAGE))
    return path


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

    async def more(self, than: int) -> None:
        """Wait until there are."""

        async def there_are() -> bool:
            return len(self.files) > than

        await eventually(there_are, what="a further flush")


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> Flushes:
    """In place of the system's, and many of them."""
    flushes = Flushes()
    monkeypatch.setattr(write_ahead_log, "_flush", flushes)
    monkeypatch.setattr(write_ahead_log, "PAUSE_SECONDS", 0.005)
    return flushes


async def test_what_is_written_reaches_the_disk_soon(written: Path, flusher: Flusher) -> None:
    """By itself the system takes half a minute; again, when more comes."""
    if not unwritten_pages(written):
        pytest.skip("this file system holds nothing back")

    async def on_disk() -> bool:
        return unwritten_pages(written) == 0

    flusher.start()
    await eventually(on_disk, 10)
    with written.open("ab") as file:
        file.write(bytes(100 * PAGE))
    await eventually(on_disk, 10)


async def test_a_log_that_is_made_anew_is_flushed_too(
    written: Path, flusher: Flusher, flushes: Flushes
) -> None:
    """As by an engine that ended and started; while there is none there is nothing to say."""
    first = _number(written)
    with capture_logs() as logs:
        flusher.start()
        await flushes.more(than=0)
        second = _made_anew(written)

        async def flushed() -> bool:
            return second in flushes.files

        await eventually(flushed)
    assert first == flushes.files[0] != second
    assert [] == logs


async def test_a_failure_is_told_once_and_so_is_its_end(
    written: Path, flusher: Flusher, flushes: Flushes
) -> None:
    """Not at each attempt; meanwhile it is tried on."""
    flushes.error = errno.EIO
    with capture_logs() as logs:
        flusher.start()
        await flushes.more(than=3)
        flushes.error = None
        await flushes.more(than=len(flushes.files) + 3)
    assert ["write_ahead_log_not_flushed", "write_ahead_log_flushed_again"] == [
        entry["event"] for entry in logs
    ]
    assert "Input/output error" == logs[0]["error"]
    assert str(written) == logs[0]["file"]


async def test_a_stop_ends_it(written: Path, flusher: Flusher, flushes: Flushes) -> None:
    """The thread is gone, where there was one."""
    flusher.start()
    await flushes.more(than=0)
    assert "flusher" in {thread.name for thread in threading.enumerate()}
    flusher.stop()
    assert "flusher" not in {thread.name for thread in threading.enumerate()}


def _number(path: Path) -> int:
    return path.stat().st_ino


def _made_anew(path: Path) -> int:
    """The old file stays elsewhere, so that its number is not given to the new one."""
    path.rename(path.with_name("old"))
    path.write_bytes(b"new")
    return _number(path)
