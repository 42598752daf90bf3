"""The services as processes: started in order, waited for, stopped in the opposite order."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Self
from urllib.error import URLError
from urllib.request import urlopen

from deploy.local.programs import BIN, PROGRAMS, Program, development_server
from deploy.local.topology import Replica, Topology

START_SECONDS = 240.0
STOP_SECONDS = 80.0
POLL_SECONDS = 0.1
_OTHERS = ("ORCHESTRATOR_", "TEMPORAL_", "OTEL_", "RABBITMQ_")
"""Variables of the shell that reach no service, as they would not reach a container."""


class CannotRun(Exception):
    """A service cannot be started, or does not become ready; where its log is."""


@dataclass
class Production:
    """The running topology; a context manager.

    Args:
        topology: what is to run.
        with_postgresql: whether the engine is the server that keeps its data there.
        without: services that are left out.
        told: hears of each service that is ready.
    """

    topology: Topology
    with_postgresql: bool
    without: frozenset[str] = frozenset()
    told: Callable[[str, list[str]], None] = lambda _, __: None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The API, through the proxy."""
        return f"http://{self.topology.address('proxy')}:8000"

    @property
    def engine(self) -> str:
        """The engine's address."""
        return f"{self.topology.address('temporal')}:7233"

    def programs(self) -> Mapping[str, Callable[[Topology, Replica], Program]]:
        """The services that are run here, in order."""
        chosen = {name: make for name, make in PROGRAMS.items() if name not in self.without}
        if not self.with_postgresql:
            del chosen["postgresql"], chosen["temporal-schema"]
            chosen["temporal"] = development_server
        return chosen

    def start(self) -> None:
        """Start each service after those before it are ready.

        Raises:
            CannotRun: one cannot.
        """
        for name, make in self.programs().items():
            begun = [(each, make(self.topology, each)) for each in self.topology.replicas[name]]
            for replica, program in begun:
                _refuse_taken(program.place)
                self.launch(replica, program)
            for replica, program in begun:
                self._wait_for(replica, program)
            self.told(name, [replica.address for replica, _ in begun])

    def launch(self, replica: Replica, program: Program) -> None:
        """Start one process."""
        environment = self.environment(replica, program)
        with self.log(replica).open("ab") as log:
            for command in program.before:
                done = self._run(command, environment, log, program.user).wait()
                if done:
                    raise CannotRun(f"{command[0]} has failed: see {self.log(replica)}")
            if program.beside:
                beside = self._run(program.beside, environment, log, program.user)
                self.processes[f"{replica.name}, beside"] = beside
            process = self._run(program.command, environment, log, program.user)
        self.processes[replica.name] = process

    def restart(self, replica: Replica) -> None:
        """Start a process again that has ended, and wait until it is ready."""
        program = self.programs()[replica.service](self.topology, replica)
        self.launch(replica, program)
        self._wait_for(replica, program)

    def environment(self, replica: Replica, program: Program) -> dict[str, str]:
        """What a process is told, and how it finds programs."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(_OTHERS)}
        path = {"PATH": f"{BIN}:{own.get('PATH', '')}"}
        return own | path | self.topology.environment(replica) | dict(program.environment)

    def log(self, replica: Replica) -> Path:
        """Where a process's output goes."""
        folder = self.topology.directory / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{replica.name}.log"

    def _run(
        self,
        command: tuple[str, ...],
        environment: Mapping[str, str],
        log: IO[bytes],
        user: str | None,
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 - commands of our own
                command,
                cwd=self.topology.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                group=user,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotRun(f"{command[0]} cannot be started: {error.strerror}") from None

    def _wait_for(self, replica: Replica, program: Program) -> None:
        process, log = self.processes[replica.name], self.log(replica)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            code = process.poll()
            if program.ends and code == 0:
                del self.processes[replica.name]
                return
            if code is not None:
                raise CannotRun(f"{replica.name} has ended with {code}: see {log}")
            if not program.ends and _is_ready(program):
                return
            time.sleep(POLL_SECONDS)
        raise CannotRun(f"{replica.name} is not ready after {START_SECONDS:g} s: see {log}")

    def kill(self, name: str) -> None:
        """End a process as a crash would."""
        self._signal(self.processes[name], signal.SIGKILL)
        self.processes.pop(name).wait()

    def stop(self) -> None:
        """Stop all, the last that was started first; what others use stops after them."""
        for _, group in groupby(reversed(list(self.processes.items())), _stopped_with):
            processes = dict(group)
            for name, process in processes.items():
                # PostgreSQL waits for its clients at SIGTERM.
                fast = signal.SIGINT if name.startswith("postgresql") else signal.SIGTERM
                self._signal(process, fast)
            for process in processes.values():
                self._end(process)
        self.processes.clear()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(process, signal.SIGKILL)
            process.wait()

    def _signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """To all of its session: RabbitMQ's program is a shell script."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _stopped_with(item: tuple[str, object]) -> str:
    """A common key of what is stopped together: all APIs and workers, whose calls may take long."""
    name, _ = item
    return "orchestrator" if name.startswith(("api", "worker")) else name


def _refuse_taken(place: str) -> None:
    """Another's server would be taken for ours, which could not start."""
    if place and _connects(place):
        port = place.rpartition(":")[2]
        raise CannotRun(
            f"{place} is taken: this runs already, or a program listens at port {port} of every "
            "address (find it: ss -ltnp). To run beside another: "
            "python -m deploy.local --network 127.78.0 --directory .data/another"
        )


def _is_ready(program: Program) -> bool:
    if not _answers(program.ready):
        return False
    return not program.check or _succeeds(program.check)


def _succeeds(command: tuple[str, ...]) -> bool:
    """Tried again and again, so what it says is of no use."""
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - of our own
    return done.returncode == 0


def _answers(ready: str) -> bool:
    if not ready.startswith("http"):
        return _connects(ready)
    try:
        with urlopen(ready, timeout=5) as answer:  # noqa: S310 - an address of ours
            return bool(answer.status == 200)  # noqa: PLR2004 - OK
    except (OSError, URLError):
        return False


def _connects(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False
