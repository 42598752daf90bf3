"""docker-compose.yml as this machine runs it: each service at a loopback address of its own.

So every service keeps the port that it has in its container. A service's name, where an environment
or a file has it, becomes its address; 0.0.0.0 becomes the service's own; paths that are mounted
become those on this machine.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
_HOSTS = ("HOST", "SEEDS")
"""So end the variables whose whole value is a service's name."""
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")

NOT_HERE: Mapping[str, Mapping[str, str | None]] = {
    name: {"OTEL_EXPORTER_OTLP_ENDPOINT": None} for name in ("api", "worker")
}
"""What is told in containers, and not here: where Jaeger is."""


@dataclass(frozen=True)
class Replica:
    """One process of a service."""

    service: str
    number: int
    address: str

    @property
    def name(self) -> str:
        """As Compose would name its container."""
        return f"{self.service}-{self.number}"


@dataclass
class Topology:
    """The services, where they are, and what they are told.

    Args:
        network: the first three numbers of the addresses, such as ``127.77.0``.
        directory: for data, logs, and files that are rendered.
        environ: for the variables that the file leaves open.
        changes: variables of services that differ from the file's; None takes one away.
        elsewhere: the addresses of services that another topology runs.
    """

    network: str
    directory: Path
    environ: Mapping[str, str]
    changes: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
        count = 0
        self.replicas: dict[str, list[Replica]] = {}
        for name, service in self.services.items():
            wanted = service.get("deploy", {}).get("replicas", 1)
            numbers = range(1, wanted + 1)
            self.replicas[name] = [
                Replica(name, number, f"{self.network}.{count + number}") for number in numbers
            ]
            count += wanted

    def address(self, service: str) -> str:
        """Of a service's first process."""
        return self.elsewhere.get(service) or self.replicas[service][0].address

    def environment(self, replica: Replica) -> dict[str, str]:
        """What the process is told, as Compose would tell it."""
        given = self.services[replica.service].get("environment", {})
        told = {key: self.rendered(str(value), replica) for key, value in given.items()}
        told |= {
            key: self.address(value)
            for key, value in told.items()
            if key.endswith(_HOSTS) and value in self.services
        }
        changed = self.changes.get(replica.service, {})
        told |= {key: value for key, value in changed.items() if value is not None}
        return {key: value for key, value in told.items() if changed.get(key, "") is not None}

    def rendered(self, text: str, replica: Replica) -> str:
        """A text of the file for this machine."""
        text = _VARIABLE.sub(self._value, text).replace("0.0.0.0", replica.address)  # noqa: S104
        for source, target in self._mounts(replica.service):
            text = text.replace(target, str(source))
        return self.located(text)

    def located(self, text: str) -> str:
        """The text with services' names replaced by their addresses where a port follows them."""
        names = "|".join(sorted(self.services, key=len, reverse=True))
        port = re.compile(rf"(?<![\w.-])({names})(?=:\d)")
        return port.sub(lambda match: self.address(match[1]), text)

    def _value(self, match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        return self.environ.get(match["name"]) or match["default"]

    def _mounts(self, service: str) -> list[tuple[Path, str]]:
        mounts = [each.split(":") for each in self.services[service].get("volumes", [])]
        found = [
            (ROOT / source if source.startswith(".") else self.volume(source), target)
            for source, target, *_ in mounts
        ]
        return sorted(found, key=lambda each: len(each[1]), reverse=True)

    def volume(self, name: str) -> Path:
        """The folder that stands for a named volume."""
        folder = self.directory / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def needs(self, service: str) -> set[str]:
        """The services that have to be ready before."""
        return set(self.services[service].get("depends_on", {}))
