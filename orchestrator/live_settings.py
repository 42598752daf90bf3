"""The configuration of a process that runs: read again at SIGHUP, and when its file has changed."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from orchestrator.config import Settings
from orchestrator.config_changes import changes, needs_restart, settled, version_of
from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError, StartupError
from orchestrator.telemetry import metrics
from orchestrator.telemetry.logging import get_logger

LOOK_SECONDS = 1.0
"""How often the file is looked at; it is read once it is the same at two looks."""

Prepare = Callable[[Settings], Callable[[], None]]
"""Builds whatever may fail by new settings; what it returns takes them over, and cannot fail."""
_Mark = tuple[int, int, int] | None

log = get_logger(__name__)


class LiveSettings:
    """The settings that hold now, and their file.

    Args:
        path: the file; without one nothing ever changes.
        environ: that it is completed from: another environment takes another process.
        look_seconds: how often the file is looked at.

    Raises:
        ConfigurationError: they are wrong.
    """

    def __init__(
        self,
        path: Path | None,
        environ: Mapping[str, str] = os.environ,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._path = path
        self._environ = environ
        self._look_seconds = look_seconds
        # First, so that what changes while it is read is read again.
        self._read = _mark_of(path)
        self.now = load(path, environ)
        self._asked = asyncio.Event()
        metrics.config_version(self.version)

    @property
    def version(self) -> str:
        """Of the settings that hold now."""
        return version_of(self.now)

    def reload_on_hangup(self) -> None:
        """Have SIGHUP ask for it; from then on it ends the process only if its terminal is gone."""
        on_hangup(self._asked.set)

    async def run(self, prepare: Prepare) -> None:
        """Take over what changes, until cancelled."""
        while True:
            await self._due()
            self.reload(prepare)

    async def _due(self) -> None:
        """Wait until it is asked for, or the file has changed and is whole."""
        seen = self._read
        while not self._asked.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._asked.wait()
            last, seen = seen, _mark_of(self._path)
            if seen not in (self._read, None) and seen == last:
                break
        self._asked.clear()

    def reload(self, prepare: Prepare) -> bool:
        """Read the file and take it over; one that is wrong is refused, and changes nothing."""
        self._read = _mark_of(self._path)
        try:
            wanted = load(self._path, self._environ)
            changed = changes(self.now, wanted)
            settings = settled(self.now, wanted)
            adopt = prepare(settings)
        except (ConfigurationError, StartupError) as error:
            self._refuse(str(error))
            return False
        except Exception as error:
            log.exception("config_broke")
            self._refuse(repr(error))
            return False
        adopt()
        self.now = settings
        self._tell(changed)
        return True

    def _refuse(self, problem: str) -> None:
        metrics.config_reload(taken_over=False)
        log.error(
            "config_refused",
            file=str(self._path),
            problem=problem,
            version=self.version,
            advice="the configuration of before goes on; correct the file",
        )

    def _tell(self, changed: tuple[str, ...]) -> None:
        metrics.config_reload(taken_over=True)
        metrics.config_version(self.version)
        restart = needs_restart(changed)
        done = [key for key in changed if key not in restart]
        if done:
            log.info("config_reloaded", file=str(self._path), changed=done, version=self.version)
        else:
            log.info("config_unchanged", file=str(self._path), version=self.version)
        for key, reason in restart.items():
            log.warning(
                "config_needs_restart",
                key=key,
                reason=reason,
                advice="it stays as it was until this process is started again",
            )


def on_hangup(act: Callable[[], None]) -> None:
    """Have SIGHUP call this instead of ending the process.

    A terminal that is closed sends the same signal, and then it is to end what ran in it.
    """
    in_terminal = _has_terminal()

    def heard() -> None:
        if in_terminal and not _has_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            act()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heard)


def _has_terminal() -> bool:
    """Whether this process can be reached from a terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _mark_of(path: Path | None) -> _Mark:
    """What tells one content of a file from the next; None where there is none to read."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
