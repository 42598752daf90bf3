"""The embedded engine's lists without what nobody asks for: they answer as they did before."""

import asyncio
import json
import random
import shutil
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from orchestrator.engine import search_attributes, visibility
from orchestrator.engine.embedded import DATABASE
from orchestrator.engine.visibility import (
    KEPT,
    TABLE,
    UnknownListsError,
    lighten,
    needs_lightening,
)
from orchestrator.supervisor.supervisor import _lighten_lists
from tests.support.engine import client_of, development_server
from tests.support.stack import eventually

QUEUE = "lists"
WORDS = SearchAttributeKey.for_keyword_list("BuildIds")
FTS_TEXT, FTS_KEYWORDS = f"{TABLE}_fts_text", f"{TABLE}_fts_keyword_list"


@workflow.defn
class Ends:
    """Returns at once."""

    @workflow.run
    async def run(self) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as the server makes it, when it has stopped."""
    folder = tmp_path_factory.mktemp("engine")
    with development_server(folder) as temporal:
        asyncio.run(client_of(temporal))
    # With what is still in the journal.
    whole = folder / "whole"
    with (
        closing(sqlite3.connect(folder / DATABASE)) as source,
        closing(sqlite3.connect(whole)) as to,
    ):
        source.backup(to)
    return whole


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(made, tmp_path / DATABASE))


def answer(database: Path, query: str, *values: object) -> list[str]:
    """The first column of what a database answers."""
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute(query, values)]


def indexes(database: Path) -> set[str]:
    """Those of the lists."""
    query = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    return set(answer(database, f"{query} AND tbl_name = ?", TABLE))


def schema(database: Path) -> list[str]:
    """All that was made."""
    return answer(database, "SELECT sql FROM sqlite_master")


def test_what_is_asked_for_keeps_its_index(database: Path) -> None:
    """And nothing else does; the engine that is installed is one whose lists are known."""
    assert needs_lightening(database)
    assert 37 == lighten(database)
    assert KEPT == indexes(database)


def test_it_is_done_once(database: Path) -> None:
    """The next start finds nothing to do, and changes nothing."""
    lighten(database)
    before = schema(database)

    assert not needs_lightening(database)
    assert 0 == lighten(database)
    assert before == schema(database)


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE INDEX mine ON {TABLE} (namespace_id)",
        f"DROP TRIGGER {TABLE}_ai",
        f"DROP INDEX by_status; CREATE UNIQUE INDEX by_status ON {TABLE} (run_id)",
        f"ALTER TABLE {TABLE} ADD COLUMN further TEXT",
    ],
)
def test_other_lists_are_left(database: Path, statement: str) -> None:
    """Those of another server, or that somebody has changed: all of it stays."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(statement)
    before = schema(database)

    with pytest.raises(UnknownListsError):
        lighten(database)
    assert before == schema(database)


def test_what_fails_half_way_changes_nothing(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last statement is wrong; the next time does all of it."""
    before = schema(database)
    with monkeypatch.context() as patch:
        patch.setattr(visibility, "_triggers", lambda *_: iter(["CREATE TRIGGER nonsense"]))
        with pytest.raises(sqlite3.Error):
            lighten(database)
    assert before == schema(database)
    assert 37 == lighten(database)


def test_a_file_without_lists_is_left(tmp_path: Path) -> None:
    """One that is empty has nothing to change; one that is no database is told as such."""
    other = tmp_path / "other"
    other.touch()
    assert 0 == lighten(other)
    assert not other.read_bytes()

    other.write_text("no database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        lighten(other)
    with pytest.raises(sqlite3.OperationalError):
        lighten(tmp_path / "none")
    assert not (tmp_path / "none").exists()


async def test_lists_that_cannot_be_changed_keep_nobody_from_starting(
    made: Path, tmp_path: Path
) -> None:
    """A line in the log says so; a database that is not there yet is no reason for one."""
    with capture_logs() as lines:
        assert not await _lighten_lists(tmp_path / "none")
    assert not lines

    other = Path(shutil.copy(made, tmp_path / "other"))
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("DROP INDEX by_status")
    with capture_logs() as lines:
        assert await _lighten_lists(other)
    assert ["lists_left_as_they_are"] == [line["event"] for line in lines]


async def test_who_stops_waits_for_what_is_begun(database: Path) -> None:
    """The directory stays in use until nobody writes to the database any more."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        working = asyncio.create_task(_lighten_lists(database))
        await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait({working}, timeout=0.2)
        assert not working.done()
        connection.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await working
    assert not needs_lightening(database)


def write(connection: sqlite3.Connection, run: int, version: int, attributes: object) -> None:
    """A row, or its next version, as the engine writes it."""
    connection.execute(
        f"INSERT INTO {TABLE} (namespace_id, run_id, _version, start_time, execution_time, "  # noqa: S608
        "workflow_id, workflow_type_name, status, encoding, search_attributes) "
        "VALUES ('n', ?, ?, '2026-01-01', '2026-01-01', 'w', 't', 1, 'e', ?) "
        "ON CONFLICT (namespace_id, run_id) DO UPDATE SET _version = excluded._version, "
        "search_attributes = excluded.search_attributes "
        f"WHERE {TABLE}._version < excluded._version",
        (str(run), version, None if attributes is None else json.dumps(attributes)),
    )


def found(connection: sqlite3.Connection) -> dict[tuple[str, str], list[int]]:
    """The rows that each word is found in, as the indexes of words have them, rows or none."""
    return {
        (table, word): [
            row[0]
            for row in connection.execute(
                f"SELECT rowid FROM {table} WHERE {table} MATCH ? ORDER BY rowid",  # noqa: S608
                (f'"{word}"',),
            )
        ]
        for table in (FTS_TEXT, FTS_KEYWORDS)
        for word in ("red", "green", "blue")
    }


@pytest.mark.parametrize("seed", range(5))
def test_words_are_found_as_before(database: Path, tmp_path: Path, seed: int) -> None:
    """Rows that come, change, lose their words and go, on the server's lists and on these."""
    chance = random.Random(seed)  # noqa: S311
    columns = ("Text01", "Text03", "BuildIds", "KeywordList02", "Keyword01")
    with closing(sqlite3.connect(database)) as connection, connection:
        for run in range(10):
            write(connection, run, 0, {"BuildIds": "red"} if run % 2 else None)
    other = Path(shutil.copy(database, tmp_path / "light"))
    lighten(other)

    with closing(sqlite3.connect(database)) as theirs, closing(sqlite3.connect(other)) as ours:
        for version in range(1, 300):
            run = chance.randrange(20)
            words = {
                column: " ".join(chance.sample(("red", "green", "blue"), 2))
                for column in columns
                if chance.random() < 0.3
            }
            goes = chance.random() < 0.2
            for connection in (theirs, ours):
                if goes:
                    connection.execute(f"DELETE FROM {TABLE} WHERE run_id = ?", (str(run),))  # noqa: S608
                else:
                    write(connection, run, version, words or None)
            assert found(theirs) == found(ours)
        assert any(found(ours).values())


async def started(client: Client, *words: str, agent: str | None = None) -> str:
    """A workflow that waits for a worker; found by its agent and by its words."""
    attributes = TypedSearchAttributes.empty
    if agent is not None:
        attributes = attributes.updated(SearchAttributePair(search_attributes.AGENT, agent))
    if words:
        attributes = attributes.updated(SearchAttributePair(WORDS, words))
    handle = await client.start_workflow(
        Ends.run, id=str(uuid.uuid4()), task_queue=QUEUE, search_attributes=attributes
    )
    return handle.id


async def shows(client: Client, query: str, *expected: str) -> None:
    """Wait until a list shows just these."""

    async def as_expected() -> bool:
        return {each.id async for each in client.list_workflows(query)} == set(expected)

    await eventually(as_expected, what=f"{query} to list {expected}")


async def test_the_engine_lists_as_before(tmp_path: Path) -> None:
    """By what has an index, by what has lost it, and by words that are there, come and change."""
    with development_server(tmp_path) as temporal:
        client = await client_of(temporal)
        old = await started(client, "one", agent="planner")
        await shows(client, "BuildIds = 'one'", old)
        lighten(tmp_path / DATABASE)
        new = await started(client, "one", agent="planner")
        bare = await started(client)

        await shows(client, "OrchestratorAgent = 'planner'", old, new)
        await shows(client, "BuildIds = 'one'", old, new)
        await shows(client, f"TaskQueue = '{QUEUE}'", old, new, bare)
        await shows(client, "HistoryLength IS NULL", old, new, bare)

        # Each gets the words of the build that carries it out: some more, or its first.
        worker = Worker(
            client,
            task_queue=QUEUE,
            workflows=[Ends],
            build_id="two",
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        async with worker:
            await shows(client, "ExecutionStatus = 'Completed'", old, new, bare)
        await shows(client, "BuildIds = 'unversioned:two'", old, new, bare)
        await shows(client, "BuildIds = 'one'", old, new)
        await shows(client, "HistoryLength = 5", old, new, bare)
