"""The agents that keep and find data: a cache in memory, and queries on a small database."""

import json
import math
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from examples.agents.contract import Answer, Payload, Refusal, Wish
from examples.agents.documents import lessons
from examples.agents.prose import outline, words

_MAX_ENTRIES = 1000
_MAX_VALUE_BYTES = 64 * 1024
_MAX_ROWS = 100
_MAX_STEPS = 200_000
_MAX_STRING_BYTES = 100_000
_Key = Annotated[str, Field(min_length=1, max_length=200)]

_SCHEMA = """
CREATE TABLE lessons (id TEXT PRIMARY KEY, title TEXT, subject TEXT, words INTEGER);
CREATE TABLE sections (lesson_id TEXT, position INTEGER, heading TEXT, body TEXT, words INTEGER);
"""
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


class Put(Wish):
    """Keep a value for some seconds."""

    action: Literal["put"]
    key: _Key
    value: Any
    ttl: float = Field(300, gt=0, le=86_400)


class Look(Wish):
    """Find a value, or forget it."""

    action: Literal["get", "delete"]
    key: _Key


class CacheWish(RootModel[Annotated[Put | Look, Field(discriminator="action")]]):
    """One of the actions of the cache."""


class Cache:
    """A bounded cache: entries expire, and the entry unused for longest makes place for a new one.

    Args:
        clock: Gives seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    def handle(self, payload: Payload) -> Answer:
        """Put, get or delete an entry."""
        match CacheWish.model_validate(payload).root:
            case Put() as put:
                return self._put(put)
            case Look(action="get", key=key):
                value = self._live(key)
                return {"key": key, "hit": value is not None, "value": value and value[0]}
            case Look(key=key):
                found = self._live(key) is not None
                self._entries.pop(key, None)
                return {"key": key, "deleted": found}

    def _put(self, put: Put) -> Answer:
        if len(json.dumps(put.value)) > _MAX_VALUE_BYTES:
            raise Refusal(f"value: expected at most {_MAX_VALUE_BYTES} bytes of JSON")
        self._entries[put.key] = (self._clock() + put.ttl, put.value)
        self._entries.move_to_end(put.key)
        if len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)
        return {"key": put.key, "stored": True, "ttl": put.ttl}

    def _live(self, key: str) -> tuple[Any] | None:
        expires, value = self._entries.get(key, (0.0, None))
        if key not in self._entries or expires <= self._clock():
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        return (value,)


class QueryWish(Wish):
    """A SELECT with ``?`` for each parameter."""

    sql: str = Field(min_length=1, max_length=5000)
    parameters: list[str | int | float | None] = Field(default=[], max_length=50)


def query_lessons(payload: Payload) -> Answer:
    """Run one read-only query on the tables ``lessons`` and ``sections``."""
    wish = QueryWish.model_validate(payload)
    with closing(_database()) as database:
        try:
            cursor = database.execute(wish.sql, wish.parameters)
            rows = cursor.fetchmany(_MAX_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
            raise Refusal(f"sql: expected one short SELECT; SQLite says: {error}") from error
    return {
        "columns": [column[0] for column in cursor.description or ()],
        "rows": [[_json(value) for value in row] for row in rows[:_MAX_ROWS]],
        "truncated": len(rows) > _MAX_ROWS,
        "method": "SQLite in memory, filled from the shipped lessons, read only",
    }


def _json(value: str | float | bytes | None) -> str | float | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


def _database() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.executescript(_SCHEMA)
    for lesson in lessons().values():
        sections = [section for section in outline(lesson.text) if section.body]
        database.execute(
            "INSERT INTO lessons VALUES (?, ?, ?, ?)",
            (lesson.content_id, lesson.title, lesson.subject, len(words(lesson.text))),
        )
        database.executemany(
            "INSERT INTO sections VALUES (?, ?, ?, ?, ?)",
            [
                (
                    lesson.content_id,
                    position,
                    section.heading,
                    section.body,
                    len(words(section.body)),
                )
                for position, section in enumerate(sections, start=1)
            ],
        )
    _confine(database)
    return database


def _confine(database: sqlite3.Connection) -> None:
    """Let only reading through, and stop a query that takes too many steps or bytes."""
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_STRING_BYTES)
    database.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY,
    )
    database.set_progress_handler(lambda: 1, _MAX_STEPS)
