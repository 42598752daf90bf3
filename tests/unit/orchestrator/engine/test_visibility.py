"""The embedded engine's lists without what nobody asks for: they answer as they did before."""

import asyncio
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from orchestrator.config import Temporal
from orchestrator.engine import search_attributes
from orchestrator.engine.embedded import DATABASE
from orchestrator.engine.visibility import COLUMNS, TABLE, lighten
from tests.support.engine import client_of, development_server
from tests.support.stack import eventually

TIMEOUT = timedelta(seconds=10)
QUEUE = "lists"
WORDS = SearchAttributeKey.for_keyword_list("BuildIds")


@workflow.defn
class Ends:
    """Returns at once."""

    @workflow.run
    async def run(self) -> None:
        """Do nothing."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Temporal]:
    """A server with a database that nobody has touched."""
    with development_server(tmp_path) as temporal:
        yield temporal


@pytest.fixture
async def client(engine: Temporal) -> Client:
    """Its client."""
    return await client_of(engine)


async def started(client: Client, *words: str, agent: str | None = None) -> str:
    """A workflow that waits for a worker; found by its agent and by its words."""
    found = TypedSearchAttributes.empty
    if agent is not None:
        found = found.updated(SearchAttributePair(search_attributes.AGENT, agent))
    if words:
        found = found.updated(SearchAttributePair(WORDS, words))
    handle = await client.start_workflow(
        Ends.run,
        id=str(uuid.uuid4()),
        task_queue=QUEUE,
        search_attributes=found,
    )
    return handle.id


async def listed(client: Client, query: str) -> set[str]:
    """The ids that a list shows."""
    return {each.id async for each in client.list_workflows(query)}


async def shows(client: Client, query: str, *expected: str) -> None:
    """Wait until a list shows just these."""

    async def as_expected() -> bool:
        return await listed(client, query) == set(expected)

    await eventually(as_expected, what=f"{query} to list {expected}")


def of_database(folder: Path, query: str) -> set[str]:
    """The first column of what a database answers."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        return {row[0] for row in connection.execute(query)}


async def test_lists_answer_as_before(client: Client, tmp_path: Path) -> None:
    """By what has an index, by what has lost it, and by words that come, change and go."""
    old = await started(client, "one", agent="planner")
    await shows(client, "BuildIds = 'one'", old)

    assert await lighten(client, tmp_path / DATABASE, TIMEOUT) > 30
    new = await started(client, "one", agent="planner")
    bare = await started(client)

    await shows(client, "OrchestratorAgent = 'planner'", old, new)
    await shows(client, "BuildIds = 'one'", old, new)
    await shows(client, f"TaskQueue = '{QUEUE}'", old, new, bare)
    await shows(client, "HistoryLength IS NULL", old, new, bare)

    # Each gets the words of the build that carries it out: some more, or their first.
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

    # As the engine does when their time is over, which takes it a while.
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.executemany(
            f"DELETE FROM {TABLE} WHERE workflow_id = ?",  # noqa: S608
            [(old,), (bare,)],
        )
    await shows(client, "BuildIds = 'unversioned:two'", new)
    await shows(client, "BuildIds = 'one'", new)
    await shows(client, "ExecutionStatus = 'Completed'", new)


async def test_what_is_asked_for_keeps_its_index(client: Client, tmp_path: Path) -> None:
    """The attributes of tasks, and what the Web UI looks for; the order of all lists too."""
    await lighten(client, tmp_path / DATABASE, TIMEOUT)

    indexes = of_database(
        tmp_path,
        f"SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = '{TABLE}' "  # noqa: S608
        "AND sql IS NOT NULL",
    )
    assert len(indexes) == 1 + len(COLUMNS) + len(search_attributes.TYPES)
    assert "default_idx" in indexes


async def test_it_is_done_once(client: Client, tmp_path: Path) -> None:
    """The next start finds nothing to do, and changes nothing."""
    await lighten(client, tmp_path / DATABASE, TIMEOUT)
    schema = of_database(tmp_path, "SELECT sql FROM sqlite_master")
    assert 6 == len(of_database(tmp_path, "SELECT name FROM sqlite_master WHERE type = 'trigger'"))

    assert 0 == await lighten(client, tmp_path / DATABASE, TIMEOUT)
    assert schema == of_database(tmp_path, "SELECT sql FROM sqlite_master")


async def test_triggers_that_do_more_are_left(client: Client, tmp_path: Path) -> None:
    """Those of a server that writes something else there too, which nobody would write then."""
    triggers = "SELECT sql FROM sqlite_master WHERE type = 'trigger'"
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        name, sql = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name LIKE '%_ai'"
        ).fetchone()
        connection.execute("CREATE TABLE seen (name)")
        connection.execute(f"DROP TRIGGER {name}")
        connection.execute(sql.removesuffix("END") + "INSERT INTO seen VALUES ('x'); END")  # noqa: S608
    before = of_database(tmp_path, triggers)

    assert await lighten(client, tmp_path / DATABASE, TIMEOUT) > 30
    assert before == of_database(tmp_path, triggers)


async def test_the_engine_works_on_meanwhile(client: Client, tmp_path: Path) -> None:
    """What is written in that time waits, and is not refused."""
    begun = [asyncio.create_task(started(client, f"word-{n}")) for n in range(20)]
    await lighten(client, tmp_path / DATABASE, TIMEOUT)
    names = await asyncio.gather(*begun)

    await shows(client, f"TaskQueue = '{QUEUE}'", *names)
    await shows(client, "BuildIds = 'word-7'", names[7])


async def test_a_file_that_is_no_engines_is_left(client: Client, tmp_path: Path) -> None:
    """An empty one has no lists; one that is no database is told as such."""
    other = tmp_path / "other"
    other.touch()
    assert 0 == await lighten(client, other, TIMEOUT)
    assert not other.read_bytes()

    other.write_text("no database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        await lighten(client, other, TIMEOUT)
