"""The processes of `make production-local`: what ends, what stays, who is alone."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.process import CannotRun, Process
from deploy.local.programs import PROGRAMS, Program
from deploy.local.running import Production, alone
from deploy.local.topology import Replica, Topology
from tests.support.stack import ROOT, command_line, ended, eventually, free_port

PARENT = """
import os, pathlib, signal, sys
from deploy.local.process import Process
here = pathlib.Path(sys.argv[1])
child = Process("child", ("sleep", "600"), dict(os.environ), here, here / "log")
child.start()
print(child.pid, flush=True)
signal.pause()
"""


def process(directory: Path, *command: str) -> Process:
    """A process that works in the folder."""
    return Process("it", command, {"PATH": "/usr/bin:/bin"}, directory, directory / "it.log")


def production(directory: Path, service: str, *command: str) -> Production:
    """A topology of one service."""

    def make(topology: Topology, replica: Replica) -> Program:
        return Program(command, ready=f"127.0.0.1:{free_port()}", ends=service == "secrets")

    return Production(Topology("127.0.0", directory, {}), {service: make})


async def test_a_process_ends_with_who_started_it(tmp_path: Path) -> None:
    """Even by kill -9, which nobody can prepare for."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path)), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())

    async def runs() -> bool:
        return command_line(child).strip() == "sleep 600"

    await eventually(runs)
    parent.kill()
    await parent.wait()
    await ended([child])


def test_an_ended_process_is_not_signalled(tmp_path: Path) -> None:
    """Its number may be another's by now."""
    one = process(tmp_path, "true")
    one.run()
    one.send(signal.SIGKILL)
    one.end()

    assert 0 == one.code


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda one: one.run(), "false has failed: see "),
        (lambda one: _renamed(one).run(), "no-such-program cannot be started: No such file"),
    ],
)
def test_what_cannot_run_says_why(
    tmp_path: Path, run: Callable[[Process], None], words: str
) -> None:
    """Which program, and where to look."""
    with pytest.raises(CannotRun, match=words):
        run(process(tmp_path, "false"))


def _renamed(one: Process) -> Process:
    one.command = ("no-such-program",)
    return one


def test_a_service_that_ends_at_once_stops_the_others(tmp_path: Path) -> None:
    """With its exit code and the place of its log."""
    with (
        pytest.raises(CannotRun, match=r"redis-1 has ended with 1: see .*redis-1\.log"),
        production(tmp_path, "redis", "false"),
    ):
        pass


def test_what_does_its_work_and_ends_is_not_started_again(tmp_path: Path) -> None:
    """Its log tells that it ran once."""
    with production(tmp_path, "secrets", "echo", "done") as running:
        running.revive()

    assert "done\n" == (tmp_path / "logs" / "secrets-1.log").read_text()


def test_two_do_not_share_a_folder(tmp_path: Path) -> None:
    """They would write to the same data; the next one may."""
    with alone(tmp_path), pytest.raises(CannotRun, match="another one runs in"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_each_service_knows_what_it_needs(tmp_path: Path) -> None:
    """By Compose's own file; what is run needs nothing that is not, but for the engine's parts."""
    topology = Topology("127.0.0", tmp_path, {})

    assert {"postgresql", "temporal-schema"} == topology.needs("temporal")
    assert {"api"} == topology.needs("proxy")
    assert set() == {need for name in PROGRAMS for need in topology.needs(name)} - PROGRAMS.keys()


def test_a_service_elsewhere_is_named_there(tmp_path: Path) -> None:
    """In the variables of whoever speaks to it."""
    topology = Topology("127.0.0", tmp_path, {}, {}, {"temporal": "127.9.9.9"})
    told = topology.environment(topology.replicas["api"][0])

    assert "127.9.9.9:7233" == told["TEMPORAL_ADDRESS"]
