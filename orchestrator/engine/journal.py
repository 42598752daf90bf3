"""Brings what the embedded engine has committed to the disk while it works.

The engine writes to a journal, and would bring that to the disk itself once it is long: it waits
meanwhile, and so does every task. Here another connection does the same all the time and holds up
nobody, so that the engine finds little left to wait for
(docs/decisions/0015-the-journal-reaches-the-disk.md).
"""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from orchestrator.engine.embedded import open_database
from orchestrator.telemetry.logging import get_logger

PAUSE_SECONDS = 0.25
"""Between two times. With 0.1 s and 1 s, calls that hit upon one waited longer."""
RETRY_SECONDS = 5.0

_BRING = "PRAGMA wal_checkpoint(PASSIVE)"
"""SQLite's way that waits for no lock and lets others read and write meanwhile. It brings the
journal to the disk, then from there what it can to the database."""

log = get_logger(__name__)


class Journal:
    """A thread that brings the journal of a database to the disk until it is stopped.

    A failure is logged once, and tried again: the engine does the same by itself, if later.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    def start(self) -> None:
        """Begin; the engine has made the database."""
        self._thread.start()

    def stop(self) -> None:
        """End and wait for it; where the engine has ended, nothing is left in the journal."""
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        told = False
        while not self._stopping.is_set():
            try:
                with closing(open_database(self._database)) as connection:
                    while not self._stopping.wait(PAUSE_SECONDS):
                        connection.execute(_BRING).fetchone()
                        told = False
            except sqlite3.Error as error:
                if not told:
                    log.warning(
                        "journal_not_on_disk", database=str(self._database), error=str(error)
                    )
                told = True
                self._stopping.wait(RETRY_SECONDS)
