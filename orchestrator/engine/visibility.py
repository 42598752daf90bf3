"""The embedded engine's lists, its visibility store, kept up to date with less work.

The development server has an index for all that a list may ever be asked for, 58 of them, and two
for words in texts. It writes every one of them when a task begins and again when it ends, though
most of them hold nothing. Here go those that lists of tasks do not need, and the two for words are
written only where there are words that are new. What a list answers stays the same; a question
about what has lost its index takes a look at each row.

Why this is done to a database that is the engine's: docs/decisions/0014-lighter-lists.md.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

TABLE = "executions_visibility"
KEPT = frozenset(
    {
        # The order of all lists, by time.
        "default_idx",
        "by_workflow_id",
        "by_workflow_type",
        "by_status",
        # What belongs to a workflow, and what is no workflow of a user: the Web UI asks for these.
        "by_parent_workflow_id",
        "by_root_workflow_id",
        "by_temporal_namespace_division",
        "by_temporal_scheduled_by_id",
        # Search attributes of the types that ours have, those that are to come included.
        *(f"by_keyword_{number:02}" for number in range(1, 11)),
        *(f"by_int_{number:02}" for number in range(1, 4)),
    }
)
"""The indexes that stay."""
_KNOWN = "df40ee32cf5c3e48c6fb448f9721a5b180678a203d83659cd9ce8733bedefa50"
"""Of the statements that made the table with its indexes and triggers: those of server 1.32."""
_THEIR_TRIGGERS = tuple(f"{TABLE}_{name}" for name in ("ai", "ad", "au"))
_WORDS = tuple(f"{TABLE}_fts_{name}" for name in ("text", "keyword_list"))


class UnknownListsError(Exception):
    """The lists are not as the server made them that this was written for."""


def needs_lightening(database: Path) -> bool:
    """Whether the lists are as the server has made them; not, if there are none yet.

    Raises:
        UnknownListsError: they are neither as the server nor as ``lighten`` leaves them.
        sqlite3.Error: the database cannot be read.
    """
    with closing(_connected(database)) as connection:
        return _needs_lightening(connection)


def lighten(database: Path) -> int:
    """Take from the lists what costs at each write and serves nobody, all of it or nothing.

    An engine that runs is refused its writes in that time: it should not run yet, or the lists be
    empty. Rows that are there are kept.

    Returns:
        How many indexes went; 0 where that is done already.

    Raises:
        UnknownListsError: they are neither as the server nor as this leaves them.
        sqlite3.Error: the database cannot be changed, and is as it was.
    """
    with closing(_connected(database)) as connection:
        if not _needs_lightening(connection):
            return 0
        # Two connections that make checkpoints can damage a database: the engine's is to be the one
        # (docs/decisions/0015-the-log-reaches-the-disk.md).
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            needless = [
                name for kind, name in _made(connection) if kind == "index" and name not in KEPT
            ]
            for name in needless:
                connection.execute(f'DROP INDEX "{name}"')
            for name in _THEIR_TRIGGERS:
                connection.execute(f'DROP TRIGGER "{name}"')
            for words in _WORDS:
                for statement in _triggers(words, _columns(connection, words)):
                    connection.execute(statement)
        return len(needless)


def _connected(database: Path) -> sqlite3.Connection:
    """By which nothing is made that is not there; transactions are begun by hand."""
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _needs_lightening(connection: sqlite3.Connection) -> bool:
    made = _made(connection)
    if not made:
        return False
    if {("trigger", name) for words in _WORDS for name in _names(words)} <= made.keys():
        return False
    found = hashlib.sha256("\n".join(made.values()).encode()).hexdigest()
    if found != _KNOWN:
        raise UnknownListsError("They are not as they were known to be")
    return True


def _made(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """The statements that made the table, its indexes and its triggers, by kind and name."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL "
        "ORDER BY type, name",
        (TABLE,),
    )
    return {(kind, name): sql for kind, name, sql in rows}


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _names(words: str) -> tuple[str, str, str]:
    """Of the triggers of one index of words: for a new row, one that goes, one that changes."""
    return f"{words}_insert", f"{words}_delete", f"{words}_update"


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
    for name, event, condition, body in zip(
        _names(words),
        ("INSERT", "DELETE", "UPDATE"),
        (has_words("NEW"), has_words("OLD"), differs),
        (add, take_back, take_back + add),
        strict=True,
    ):
        yield f"CREATE TRIGGER {name} AFTER {event} ON {TABLE} WHEN {condition} BEGIN {body} END"
