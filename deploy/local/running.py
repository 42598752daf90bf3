"""The services as processes: started in order, kept running, stopped in the opposite order."""

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from deploy.local.process import CannotRun, Process
from deploy.local.programs import BIN, Program
from deploy.local.topology import Replica, Topology

START_SECONDS = 240.0
POLL_SECONDS = 0.1
REVIVE_SECONDS = 1.0
_OTHERS = ("ORCHESTRATOR_", "TEMPORAL_", "OTEL_", "RABBITMQ_")
"""Variables of the shell that reach no service, as they would not reach a container."""

_STOP = {"postgresql": signal.SIGINT, "proxy": signal.SIGUSR1}
"""Where it is not SIGTERM, at which PostgreSQL waits for its clients and HAProxy drops them."""

Programs = Mapping[str, Callable[[Topology, Replica], Program]]


@dataclass(frozen=True)
class _Started:
    """A process that is to become ready."""

    program: Program
    process: Process
    deadline: float

    def ready(self) -> bool:
        """Whether it is.

        Raises:
            CannotRun: it has ended, or takes too long.
        """
        name, log, code = self.process.name, self.process.log, self.process.code
        if code is not None and (code or not self.program.ends):
            raise CannotRun(f"{name} has ended with {code}: see {log}")
        if code == 0 if self.program.ends else _is_ready(self.program):
            return True
        if time.monotonic() > self.deadline:
            raise CannotRun(f"{name} is not ready after {START_SECONDS:g} s: see {log}")
        return False


@dataclass
class Production:
    """The running topology; a context manager.

    Use it in one thread, which has to live as long: the processes end with it.

    Args:
        topology: what is to run.
        programs: the services that run here, and how.
        told: hears of each service that is ready, or has ended.
    """

    topology: Topology
    programs: Programs
    told: Callable[[str], None] = lambda _: None
    processes: dict[str, Process] = field(default_factory=dict)

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

    def start(self) -> None:
        """Start each service once those that it needs are ready.

        Raises:
            CannotRun: one cannot.
        """
        waiting, starting = dict(self.programs), dict[str, list[_Started]]()
        while waiting or starting:
            unready = waiting.keys() | starting.keys()
            for name in [each for each in waiting if not self.topology.needs(each) & unready]:
                starting[name] = self._begin(name, waiting.pop(name))
            for name, started in list(starting.items()):
                started[:] = [each for each in started if not each.ready()]
                if not started:
                    del starting[name]
                    places = (each.address for each in self.topology.replicas[name])
                    self.told(f"{name:20} {', '.join(places)}")
            time.sleep(POLL_SECONDS)

    def _begin(self, name: str, make: Callable[[Topology, Replica], Program]) -> list[_Started]:
        deadline = time.monotonic() + START_SECONDS
        started = []
        for replica in self.topology.replicas[name]:
            program = make(self.topology, replica)
            _refuse_taken(program.place)
            started.append(_Started(program, self._launch(replica, program), deadline))
        return started

    def _launch(self, replica: Replica, program: Program) -> Process:
        for command in program.before:
            self._process(replica.name, command, replica, program).run()
        if program.beside:
            name = f"{replica.name}, beside"
            self.processes[name] = self._process(name, program.beside, replica, program)
            self.processes[name].start()
        process = self._process(replica.name, program.command, replica, program)
        self.processes[replica.name] = process
        process.start()
        return process

    def _process(
        self, name: str, command: tuple[str, ...], replica: Replica, program: Program
    ) -> Process:
        logs = self.topology.directory / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        return Process(
            name,
            command,
            self.environment(replica, program),
            self.topology.directory,
            logs / f"{replica.name}.log",
            program.user,
            program.ends,
        )

    def environment(self, replica: Replica, program: Program) -> dict[str, str]:
        """What a process is told, by its image and over it by its service; it finds programs."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(_OTHERS)}
        path = {"PATH": f"{BIN}:{own.get('PATH', '')}"}
        return own | path | dict(program.environment) | self.topology.environment(replica)

    def revive(self) -> None:
        """Start again what has ended, as Compose does (``restart: unless-stopped``).

        Raises:
            CannotRun: it cannot be started.
        """
        for process in self.processes.values():
            if process.code is not None and not process.ends:
                self.told(f"{process.name} has ended with {process.code}, and is started again")
                process.start()

    def keep(self, until: Callable[[float], bool]) -> None:
        """Revive what ends, until what waits so many seconds says that it is enough."""
        while not until(REVIVE_SECONDS):
            self.revive()

    def stop(self) -> None:
        """Stop all, the last that was started first; what others use stops after them."""
        for _, group in groupby(reversed(self.processes.values()), _stopped_with):
            processes = list(group)
            for process in processes:
                service = process.name.rpartition("-")[0]
                process.send(_STOP.get(service, signal.SIGTERM))
            for process in processes:
                process.end()
        self.processes.clear()


def _stopped_with(process: Process) -> str:
    """A common key of what is stopped together: APIs, workers and proxy end what is under way."""
    name = process.name
    return "orchestrator" if name.startswith(("api", "worker", "proxy")) else name


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a folder, so that no other run writes to the same data.

    Raises:
        CannotRun: another does.
    """
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(f"another one runs in {directory}: stop it, or {_BESIDE}") from None
        yield


_BESIDE = (
    "run this one beside it: python -m deploy.local --network 127.78.0 --directory .data/another"
)


def _refuse_taken(place: str) -> None:
    """Another's server would be taken for ours, which could not start."""
    if place and _connects(place):
        port = place.rpartition(":")[2]
        raise CannotRun(
            f"{place} is taken: this runs already, or a program listens at port {port} of every "
            f"address (find it: ss -ltnp). Stop that, or {_BESIDE}"
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
