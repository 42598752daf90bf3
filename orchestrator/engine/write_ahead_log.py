"""Brings the embedded engine's write-ahead log to the disk all the time.

The engine would do so itself only once the log is long, and then it waits for the disk, and so does
every task. Here another process has the system write out the same file meanwhile, so that little is
left to wait for. It only flushes: it neither reads the database nor takes its locks
(docs/decisions/0015-the-log-reaches-the-disk.md).
"""

import os
import threading
from contextlib import suppress
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

    A failure is logged when it begins and when it ends. The engine does the same, if later.
    """

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-wal")
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="flusher", daemon=True)

    def start(self) -> None:
        """Begin; there may be no log yet."""
        self._thread.start()

    def stop(self) -> None:
        """End; a disk that does not answer is waited for five seconds at most."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            try:
                # Anew each time: an engine that starts or ends may make another file.
                with suppress(FileNotFoundError), self._path.open("rb") as file:
                    _flush(file.fileno())
            except OSError as error:
                if not self._failing:
                    log.warning(
                        "write_ahead_log_not_flushed", file=str(self._path), error=error.strerror
                    )
                self._failing = True
            else:
                if self._failing:
                    log.info("write_ahead_log_flushed_again", file=str(self._path))
                self._failing = False
