"""bench/textbook.py on the untuned development server, on a file or in memory."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from temporalio.client import Client

from bench.children import child
from bench.readings import Readings, database_size
from bench.stage import PAYLOAD
from bench.subject import Order, Outcome, Place, posting, reached, submit
from bench.subjects.floor import Floor
from orchestrator.engine.embedded import find_binary
from tests.support.stack import free_port


class Textbook:
    """The service, its worker, and the server as `temporal server start-dev` starts it."""

    versions = Floor.versions

    def __init__(self, place: Place, file: str | None) -> None:
        self._place = place
        self._file = file
        self._pids: dict[str, list[int]] = {}
        self.durability = (
            "SQLite with the server's defaults: survives a crash of the process"
            if file
            else "in memory: lost with the process"
        )

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Run the three processes for the time of the block."""
        engine_port, api_port = free_port(), free_port()
        engine = f"127.0.0.1:{engine_port}"
        service = (sys.executable, "-m", "bench.textbook")
        async with AsyncExitStack() as stack:

            async def start(kind: str, *command: str, port: int | None = None) -> None:
                log = self._place.directory / f"{kind}.log"
                process = await stack.enter_async_context(child(*command, log=log, port=port))
                self._pids[kind] = [process.pid]

            await start("engine", *self._server(engine_port), port=engine_port)
            self._readings = Readings(await _connect(engine), ("CallService",))
            await start("worker", *service, "worker", engine)
            await start("api", *service, "api", engine, str(api_port), port=api_port)
            self._url = f"http://127.0.0.1:{api_port}"
            yield

    def _server(self, port: int) -> list[str]:
        command = [str(find_binary()), "server", "start-dev"]
        command += ["--port", str(port), "--ui-port", str(free_port())]
        if self._file:
            command += ["--db-filename", str(self._place.directory / self._file)]
        return command

    async def run(self, order: Order) -> Outcome:
        """Post the tasks and wait until the workflows have completed."""
        goal = await self._readings.ended() + order.tasks
        body = {"url": self._place.agent + order.path, "payload": PAYLOAD}
        submissions = await submit(order, lambda: posting(self._url, "/tasks", body, "id"))
        await reached(self._readings.ended, goal)
        submissions.stored()
        return await self._readings.outcome(submissions)

    def processes(self) -> dict[str, list[int]]:
        """Server, worker and API."""
        return self._pids

    async def stored_bytes(self) -> int | None:
        """The server's database; in memory there is none."""
        return database_size(self._place.directory / self._file) if self._file else None


async def _connect(engine: str) -> Client:
    """Connect as soon as the server answers."""
    for _ in range(100):
        try:
            return await Client.connect(engine)
        except RuntimeError:
            continue
    return await Client.connect(engine)


@asynccontextmanager
async def on_file(place: Place) -> AsyncIterator[Textbook]:
    """The server with `--db-filename`."""
    textbook = Textbook(place, "engine.sqlite")
    async with textbook.started():
        yield textbook


@asynccontextmanager
async def in_memory(place: Place) -> AsyncIterator[Textbook]:
    """The server without."""
    textbook = Textbook(place, None)
    async with textbook.started():
        yield textbook
