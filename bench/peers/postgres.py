"""A PostgreSQL server of its own, as Debian's package sets it up: every commit reaches the disk."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGINT
from typing import Any

import asyncpg

from bench.children import child, finished
from bench.subject import MissingError
from tests.support.stack import free_port

DURABILITY = "PostgreSQL, fsync=on, synchronous_commit=on: survives a power cut"
USER = "postgres"
_CONNECTIONS = 300
_START_SECONDS, _POLL_SECONDS = 60, 0.05


class Database:
    """A running server with one database."""

    def __init__(self, port: int, pid: int, pool: asyncpg.Pool, version: str) -> None:
        self.port = port
        self.version = f"PostgreSQL {version.split(maxsplit=1)[0]}"
        self.pid = pid
        self._pool = pool

    @property
    def url(self) -> str:
        """Where the database is."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    async def count(self, query: str) -> int:
        """The one number that a query tells."""
        return int(await self._pool.fetchval(query))

    async def rows(self, query: str) -> Sequence[Sequence[Any]]:
        """What a query tells."""
        found: Sequence[Sequence[Any]] = await self._pool.fetch(query)
        return found

    async def size(self) -> int:
        """Bytes of the database's files, its write-ahead log left out."""
        return await self.count("SELECT pg_database_size(current_database())")


@asynccontextmanager
async def postgres() -> AsyncIterator[Database]:
    """A new server for the time of the block.

    Raises:
        MissingError: PostgreSQL is not installed.
    """
    programs = _programs()
    # Where its user may enter, whoever runs this.
    with tempfile.TemporaryDirectory(prefix="bench-postgres-") as name:
        directory, log, port = Path(name), Path(name) / "log", free_port()
        if os.getuid() == 0:
            shutil.chown(directory, USER, USER)
        data = directory / "data"
        create = ("--pgdata", data, "--username", USER, "--auth", "trust", "--encoding", "UTF8")
        await finished(*_as_user(), programs / "initdb", *create, log=log)
        command = (programs / "postgres", "-D", data, "-p", str(port), "-k", directory)
        settings = ("-c", "listen_addresses=127.0.0.1", "-c", f"max_connections={_CONNECTIONS}")
        async with (
            child(*_as_user(), *command, *settings, log=log, port=port, stop=SIGINT) as server,
            await _pool(port) as pool,
        ):
            yield Database(port, server.pid, pool, await pool.fetchval("SHOW server_version"))


async def _pool(port: int) -> asyncpg.Pool:
    """Connections, as soon as the server takes them, which is a moment after it listens."""
    url = f"postgresql://{USER}@127.0.0.1:{port}/{USER}"
    async with asyncio.timeout(_START_SECONDS):
        while True:
            with suppress(asyncpg.CannotConnectNowError):
                await (await asyncpg.connect(url)).close()
                return asyncpg.create_pool(url, min_size=1, max_size=2)
            await asyncio.sleep(_POLL_SECONDS)


def _programs() -> Path:
    beside = shutil.which("initdb")
    if beside:
        return Path(beside).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise MissingError("PostgreSQL is not installed (apt install postgresql)")
    return found[-1].parent


def _as_user() -> tuple[str, ...]:
    """The server refuses to run as root."""
    if os.getuid():
        return ()
    return ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
