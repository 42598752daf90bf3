"""Programs that a subject starts, and stops when it is done."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGTERM, Signals

_START_SECONDS = 60
_STOP_SECONDS = 20
_POLL_SECONDS = 0.05
_TOLD_CHARACTERS = 3000


@asynccontextmanager
async def child(
    *command: str | Path,
    log: Path,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    stop: Signals = SIGTERM,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that runs for the time of the block, from when it listens on its port.

    Raises:
        RuntimeError: it ended at once, or does not listen within a minute.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        if port is not None:
            await listening(port, process, log)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(stop)
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def listening(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until somebody listens on the port."""
    for _ in range(int(_START_SECONDS / _POLL_SECONDS)):
        if process.returncode is not None:
            break
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            writer.close()
            return
    raise RuntimeError(f"a program does not start:\n{end_of(log)}")


async def finished(
    *command: str | Path, log: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a program to its end.

    Raises:
        RuntimeError: it failed.
    """
    async with child(*command, log=log, environment=environment) as process:
        if await process.wait():
            raise RuntimeError(f"{command[0]} failed:\n{end_of(log)}")


def end_of(log: Path) -> str:
    """The last lines of a log."""
    return log.read_text()[-_TOLD_CHARACTERS:]
