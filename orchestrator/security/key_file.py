"""The file that keys are kept in: written whole or not at all, read again when it has changed."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import yaml
from pydantic import ValidationError

from orchestrator.errors import StartupError
from orchestrator.security.keys import Key, KeyRing, digest_of
from orchestrator.telemetry.logging import audit_logger, get_logger

LOOK_SECONDS = 1.0
"""So often it is looked whether the file has changed."""
MAX_BYTES = 16 * 1024 * 1024
_HEADER = "# Written by `orchestrator keys`. Only hashes of the keys are in it.\n"

log = get_logger(__name__)
audit = audit_logger()


def read(path: Path) -> KeyRing:
    """The keys of a file.

    Raises:
        StartupError: in one line, why it cannot be used.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise StartupError(f"{path}: over {MAX_BYTES:,} bytes")
        return KeyRing.model_validate(yaml.load(text, Loader=yaml.CSafeLoader) or {})
    except FileNotFoundError:
        raise StartupError(
            f"{path}: there is no such file; make a first key by: orchestrator keys create "
            f"--name NAME --tenant TENANT --file {path}"
        ) from None
    except OSError as error:
        raise StartupError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise StartupError(f"{path}: not YAML") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StartupError(f"{path}: {where or 'file'}: {first['msg']}") from None
    except ValueError as error:
        # Such as a date that is none.
        raise StartupError(f"{path}: not YAML: {error}") from None


def write(path: Path, ring: KeyRing) -> None:
    """Replace the file, readable by its owner alone; whoever reads it meanwhile has the old one.

    Raises:
        StartupError: it cannot be written, as a mounted secret cannot.
    """
    text = yaml.safe_dump(ring.model_dump(mode="json", exclude_none=True), sort_keys=False)
    try:
        # Made with mode 0600.
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(number, "w") as file:
                file.write(_HEADER + text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise StartupError(
            f"{path}: cannot be written: {error.strerror}; change a copy (--file) and put that in "
            "its place"
        ) from None


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Let nobody else change the file within the block."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise StartupError(f"{path.parent}: cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class KeyFile:
    """The keys of a file as they are now, at most LOOK_SECONDS ago.

    A file that has become unreadable leaves the keys as they were, and is complained about.

    Raises:
        StartupError: the file cannot be used at all.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._seen = self._stamp()
        self._looked = clock()
        self._take(read(path))

    def find(self, secret: str) -> Key | None:
        """The key that has this secret and is in force."""
        self._renew()
        digest = digest_of(secret)
        key = self._keys.get(digest)
        return key if key and key.takes(digest, datetime.now(UTC)) else None

    def by_id(self, key_id: str) -> Key | None:
        """The key of that id, if it is in force."""
        self._renew()
        key = self._by_id.get(key_id)
        return key if key and key.state(datetime.now(UTC)) == "active" else None

    def _renew(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            ring = read(self._path)
        except StartupError as error:
            log.warning("keys_not_reloaded", reason=str(error), advice="the keys stay as they were")
            return
        before = self._by_id
        self._take(ring)
        _record(self._path, before, self._by_id)

    def _take(self, ring: KeyRing) -> None:
        self._keys = ring.by_digest()
        self._by_id = {key.id: key for key in ring.keys}

    def _stamp(self) -> tuple[int, int, int] | None:
        # A mounted secret is a link that is turned to another file.
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _record(path: Path, before: Mapping[str, Key], after: Mapping[str, Key]) -> None:
    """A line of the audit log; who has changed the file, only its system knows."""
    both = before.keys() & after.keys()
    audit.info(
        "audit",
        action="keys changed",
        target=str(path),
        outcome="done",
        added=sorted(after.keys() - before.keys()),
        changed=sorted(each for each in both if before[each] != after[each]),
        removed=sorted(before.keys() - after.keys()),
    )
