"""The engine's journal reaches the database while the engine works."""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orchestrator.engine import journal
from orchestrator.engine.embedded import open_database
from orchestrator.engine.journal import Journal
from tests.support.stack import eventually

SECONDS = 20.0


class Writer:
    """Another connection that leaves all that it writes in the journal, as the engine long does."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.connection = sqlite3.connect(database, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.connection.execute("CREATE TABLE task (name TEXT)")

    def write(self, name: str) -> None:
        """Commit a row."""
        self.connection.execute("INSERT INTO task VALUES (?)", (name,))

    def reached_the_database(self, name: str) -> bool:
        """Whether the row is in the database's own file, whatever the journal holds."""
        alone = self.database.with_suffix(".alone")
        shutil.copyfile(self.database, alone)
        with closing(sqlite3.connect(alone)) as copy:
            try:
                return bool(copy.execute("SELECT 1 FROM task WHERE name = ?", (name,)).fetchall())
            except sqlite3.DatabaseError:
                return False  # without the table, or copied as it was written


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """On a new database."""
    writer = Writer(tmp_path / "engine.sqlite")
    with closing(writer.connection):
        yield writer


async def _reached(writer: Writer, name: str) -> None:
    async def reached() -> bool:
        return writer.reached_the_database(name)

    await eventually(reached, SECONDS, f"{name} in the database")


async def test_what_is_committed_reaches_the_database_again_and_again(writer: Writer) -> None:
    """Without it nothing would: the other connection leaves all of it in the journal."""
    writer.write("before")
    assert not writer.reached_the_database("before")
    kept = Journal(writer.database)
    kept.start()
    try:
        await _reached(writer, "before")
        writer.write("after")
        await _reached(writer, "after")
    finally:
        await asyncio.to_thread(kept.stop)
    writer.write("too late")
    assert not writer.reached_the_database("too late")


async def test_an_open_transaction_holds_up_nobody(writer: Writer) -> None:
    """What was committed before goes on its way; the transaction can still be committed."""
    writer.write("before")
    writer.connection.execute("BEGIN IMMEDIATE")
    writer.write("within")
    kept = Journal(writer.database)
    kept.start()
    try:
        await _reached(writer, "before")
        assert not writer.reached_the_database("within")
        writer.connection.execute("COMMIT")
        await _reached(writer, "within")
    finally:
        await asyncio.to_thread(kept.stop)


def test_nothing_is_left_in_the_journal_when_both_have_ended(writer: Writer) -> None:
    """As with the engine alone: what is stopped is one file."""
    kept = Journal(writer.database)
    kept.start()
    writer.write("last")
    writer.connection.close()
    kept.stop()
    assert writer.reached_the_database("last")
    assert not Path(f"{writer.database}-wal").exists()


async def test_a_failure_is_told_once_and_got_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a database that is not there yet; none is made in its place."""
    monkeypatch.setattr(journal, "RETRY_SECONDS", 0.01)
    database = tmp_path / "engine.sqlite"
    attempts = 0

    def counted(path: Path) -> sqlite3.Connection:
        nonlocal attempts
        attempts += 1
        return open_database(path)

    async def tried_thrice() -> bool:
        return attempts >= 3

    monkeypatch.setattr(journal, "open_database", counted)
    kept = Journal(database)
    with capture_logs() as logs:
        kept.start()
        try:
            await eventually(tried_thrice, SECONDS, "three attempts")
            assert not database.exists()
            with closing((writer := Writer(database)).connection):
                writer.write("back")
                await _reached(writer, "back")
        finally:
            await asyncio.to_thread(kept.stop)
    assert [entry["event"] for entry in logs] == ["journal_not_on_disk"]
