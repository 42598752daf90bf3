"""Brings the embedded engine's write-ahead log to the disk all the time.

The engine would do so itself only once the log is long, and then it waits for the disk, and so does
every task. Here another process has the system write out the same file meanwhile, so that it is
there already. It only flushes: it neither reads the database nor takes its locks
(docs/decisions/0015-the-log-reaches-the-disk.md).
"""

import os
import threading
from pathlib import Path

from orchestrator.telemetry.logging import get_logger

PAUSE_SECONDS = 0.25
"""Between the end of one flush and the next."""
_STOP_SECONDS = 5.0

# Where the system can, without what is only about the file, such as when it was changed.
_flush = getattr(os, "fdatasync", os.fsync)

log = get_logger(__name__)


class Flusher:
    """A thread that flushes the write-ahead log of a database until it is stopped.

    It logs when flushes begin to fail, and when they succeed again. Pages whose flush has failed
    may be lost to the log: they are safe once the engine has moved it to the database.
    """

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-wal")
        self._flushed: tuple[int, int, int] | None = None
        self._changed = False
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="flusher", daemon=True)

    def start(self) -> None:
        """Begin; there may be no log yet."""
        self._thread.start()

    def stop(self) -> None:
        """End with a last flush; a disk that does not answer is waited for five seconds at most."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            self._round()
        self._round()

    def _round(self) -> None:
        try:
            # Anew each time: an engine that starts or ends may make another file.
            with self._path.open("rb") as file:
                self._bring(file.fileno())
        except FileNotFoundError:
            pass
        except OSError as error:
            if not self._failing:
                log.warning(
                    "write_ahead_log_not_flushed", file=str(self._path), error=error.strerror
                )
            self._failing = True
        else:
            if self._failing:
                log.info("write_ahead_log_flushes_again", file=str(self._path))
            self._failing = False

    def _bring(self, descriptor: int) -> None:
        """Flush what was written since, or may have been in the last moment before.

        A file's time of change has steps of some milliseconds: what is written within one after a
        flush does not show, so each change is followed by two.
        """
        found = os.fstat(descriptor)
        now = (found.st_ino, found.st_size, found.st_mtime_ns)
        changed = now != self._flushed
        if changed or self._changed:
            _flush(descriptor)
            self._flushed, self._changed = now, changed
