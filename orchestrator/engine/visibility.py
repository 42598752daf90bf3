"""The embedded engine's lists, its visibility store, kept up to date with less work.

The development server has an index for all that a list may ever be asked for, some sixty, and two
for words in texts. It writes every one of them when a task begins and again when it ends, though
most of them hold nothing. Here go those that no list of tasks needs, and the two for words are
written only where there are words that are new. What a list answers stays the same; a question
about what has lost its index takes a look at each row.

Why this is done to a database that is the engine's: docs/decisions/0014-lighter-lists.md.
"""

import asyncio
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

TABLE = "executions_visibility"
COLUMNS: frozenset[str] = frozenset(
    {
        "workflow_id",
        "workflow_type_name",
        "status",
        "parent_workflow_id",
        "root_workflow_id",
        "TemporalNamespaceDivision",
    }
)
"""Those that our lists, the Web UI and the command line look for, beside the times."""
_BUSY_SECONDS = 30
_THEIR_TRIGGERS = tuple(f"{TABLE}_{name}" for name in ("ai", "ad", "au"))
_WRITES = re.compile(r"(?:INSERT INTO|UPDATE(?! ON)|DELETE FROM|REPLACE INTO)\s+(\w+)")


async def lighten(client: Client, database: Path, timeout: timedelta) -> int:
    """Take from the lists what costs at each write and serves nobody; what is done is not repeated.

    It runs beside the engine, which waits for the moment that each step takes.

    Args:
        client: of the engine; the search attributes of its namespace stay indexed.
        database: the engine's file.
        timeout: of the question for these attributes.

    Returns:
        How many indexes went.

    Raises:
        sqlite3.Error: the database cannot be changed, or is not as it was known to be.
    """
    namespace = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=client.namespace), timeout=timeout
    )
    in_use = COLUMNS.union(namespace.config.custom_search_attribute_aliases)
    return await asyncio.to_thread(_lighten, database, in_use)


def _lighten(database: Path, in_use: Collection[str]) -> int:
    connected = sqlite3.connect(database, timeout=_BUSY_SECONDS, isolation_level=None)
    with closing(connected) as connection:
        needless = [name for name, column in _indexes(connection) if column not in in_use]
        for name in needless:
            connection.execute(f"DROP INDEX {name}")
        if indexes := _indexes_of_words(connection):
            _rewrite_triggers(connection, indexes)
        return len(needless)


def _indexes(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Each index of the lists by a column within a namespace, and that column."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
        (TABLE,),
    ).fetchall()
    for (name,) in names:
        columns = [column for _, _, column in connection.execute(f"PRAGMA index_info({name})")]
        if columns[0] == "namespace_id" and columns[1] is not None:
            yield name, columns[1]


def _indexes_of_words(connection: sqlite3.Connection) -> set[str]:
    """Those that the engine's triggers write; none where these are not as they were known to be."""
    triggers = [
        sql
        for (sql,) in connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name IN (?, ?, ?)",
            _THEIR_TRIGGERS,
        )
    ]
    written = {name for sql in triggers for name in _WRITES.findall(sql)}
    known = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE sql LIKE ? AND sql LIKE ?",
            ("CREATE VIRTUAL TABLE % USING fts5%", f"%content='{TABLE}'%"),
        )
    }
    whole = len(triggers) == len(_THEIR_TRIGGERS) and written <= known
    return written if whole else set()


def _rewrite_triggers(connection: sqlite3.Connection, indexes: Collection[str]) -> None:
    """Have the indexes of words written only where a row has words, or gets others."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        for trigger in _THEIR_TRIGGERS:
            connection.execute(f"DROP TRIGGER {trigger}")
        for words in indexes:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({words})")]
            for statement in _triggers(words, columns):
                connection.execute(statement)


def _triggers(words: str, columns: Sequence[str]) -> Iterator[str]:
    """Those of one index of words, which takes back a row by the very words that it was given."""
    names = ", ".join(columns)

    def values(row: str) -> str:
        return ", ".join(f"{row}.{column}" for column in columns)

    def has_words(row: str) -> str:
        return " OR ".join(f"{row}.{column} IS NOT NULL" for column in columns)

    differs = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in columns)
    add = (
        f"INSERT INTO {words} (rowid, {names}) "
        f"SELECT NEW.rowid, {values('NEW')} WHERE {has_words('NEW')};"
    )
    take_back = (
        f"INSERT INTO {words} ({words}, rowid, {names}) "
        f"SELECT 'delete', OLD.rowid, {values('OLD')} WHERE {has_words('OLD')};"
    )
    for event, condition, body in (
        ("INSERT", has_words("NEW"), add),
        ("DELETE", has_words("OLD"), take_back),
        ("UPDATE", differs, take_back + add),
    ):
        yield (
            f"CREATE TRIGGER {words}_{event.lower()} AFTER {event} ON {TABLE} "
            f"WHEN {condition} BEGIN {body} END"
        )
