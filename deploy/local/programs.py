"""How each service is started from a program of this machine."""

import os
import pwd
import random
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from deploy.local.process import CannotRun
from deploy.local.topology import ROOT, Replica, Topology

BIN = Path(sys.executable).parent
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's program itself: its wrapper in /usr/sbin insists on another user."""


@dataclass(frozen=True)
class Program:
    """What is to be run.

    Args:
        command: the program and its arguments.
        ready: what answers when it can be used: ``host:port``, or a URL that answers 200.
        check: a command that succeeds then, where an open port does not tell.
        ends: whether it does its work and ends, instead of serving.
        environment: further variables.
        user: who runs it, where that is not us.
        before: commands that are run first.
        beside: a command that runs as long as it does.
    """

    command: tuple[str, ...]
    ready: str = ""
    check: tuple[str, ...] = ()
    ends: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    before: tuple[tuple[str, ...], ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where it serves: ``host:port``; empty where it serves nobody."""
        return urlsplit(self.ready).netloc if "://" in self.ready else self.ready


def postgresql_programs() -> Path | None:
    """Where PostgreSQL's programs are; Debian keeps them off PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((each.parent for each in versions), key=_version, default=None)


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def temporal_server() -> bool:
    """Whether the server that keeps its data in PostgreSQL is installed."""
    tools = ("temporal-server", "temporal-sql-tool")
    return all(map(shutil.which, tools)) and postgresql_programs() is not None


def missing() -> list[str]:
    """The Debian packages that have to be installed."""
    wanted = {
        "redis-server": shutil.which("redis-server"),
        "rabbitmq-server": Path(RABBITMQ).exists() and shutil.which("epmd"),
        "haproxy": shutil.which("haproxy"),
    }
    return [package for package, found in wanted.items() if not found]


def secrets(topology: Topology, replica: Replica) -> Program:
    """The script of the image, on a folder that stands for its volume."""
    del topology, replica
    return Program(("sh", str(ROOT / "deploy" / "secrets.sh")), ends=True)


def postgresql(topology: Topology, replica: Replica) -> Program:
    """A database of our own; it refuses to run as root."""
    programs, data = postgresql_programs(), topology.volume("postgresql") / "data"
    assert programs is not None  # noqa: S101 - was looked for before
    told = topology.environment(replica)
    password = topology.directory / "postgresql.password"
    password.unlink(missing_ok=True)
    password.touch(0o600)
    password.write_text(told["POSTGRES_PASSWORD"])
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        _give(user, data.parent, password)
    # Made aside, so that one that is broken off in the middle is made anew.
    new = data.with_name("new")
    shutil.rmtree(new, ignore_errors=True)
    initdb = (str(programs / "initdb"), "--pgdata", str(new), "--auth", "scram-sha-256")
    options = ("--username", told["POSTGRES_USER"], "--pwfile", str(password), "--no-instructions")
    settings = (
        f"listen_addresses={replica.address}",
        f"unix_socket_directories={data.parent}",
        "log_min_messages=warning",
    )
    # Compose's network is private; here it is this machine.
    line = "host all all 127.0.0.0/8 scram-sha-256"
    opened = (
        "sh",
        "-c",
        'echo "$0" >> "$1/pg_hba.conf" && mv "$1" "$2"',
        line,
        str(new),
        str(data),
    )
    command = (str(programs / "postgres"), "-D", str(data))
    return Program(
        (*command, *(part for each in settings for part in ("-c", each))),
        ready=f"{replica.address}:5432",
        # It listens before it has recovered from a crash.
        check=(str(programs / "pg_isready"), "--quiet", "--host", replica.address),
        user=user,
        before=() if data.exists() else ((*initdb, *options), opened),
    )


def _give(user: str, *paths: Path) -> None:
    """Let the user have them."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise CannotRun(
            f"PostgreSQL does not run as root, and there is no user {user}: run this as another "
            "user, or with --engine development"
        ) from None
    for path in paths:
        os.chown(path, entry.pw_uid, entry.pw_gid)


def temporal_schema(topology: Topology, replica: Replica) -> Program:
    """The script of the tools' image."""
    return _script(topology, replica)


def _script(topology: Topology, replica: Replica) -> Program:
    command = topology.services[replica.service]["command"]
    return Program(tuple(topology.rendered(each, replica) for each in command), ends=True)


def temporal(topology: Topology, replica: Replica) -> Program:
    """The server, told by its environment alone, as in its image."""
    del topology
    return Program(("temporal-server", "start"), ready=f"{replica.address}:7233")


_RELAY = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h

listen engine
    bind {place}
    server engine 127.0.0.1:{port}
"""


def development_server(topology: Topology, replica: Replica) -> Program:
    """What stands for server and database where there is none.

    Its parts look for each other at 127.0.0.1 alone, so it stays there and HAProxy leads to it.
    """
    port, place = _free_port(), f"{replica.address}:7233"
    relay = topology.directory / "engine.cfg"
    relay.write_text(_RELAY.format(place=place, port=port))
    file = topology.volume("engine") / "engine.sqlite"
    settings = yaml.safe_load((ROOT / "deploy" / "temporal" / "dynamicconfig.yaml").read_text())
    values = [
        f"{name}={str(value).lower() if isinstance(value, bool) else _quoted(value)}"
        for name, [entry, *_] in settings.items()
        for value in [entry["value"]]
    ]
    # It knows no durations of dynamic configuration but as texts.
    given = (part for each in values for part in ("--dynamic-config-value", each))
    temporal = str(BIN / "temporal")
    command = (temporal, "server", "start-dev", "--headless", "--log-level", "warn")
    return Program(
        (*command, "--port", str(port), "--db-filename", str(file), *given),
        ready=place,
        check=(temporal, "operator", "cluster", "health", "--address", place),
        beside=("haproxy", "-f", str(relay)),
    )


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def temporal_namespace(topology: Topology, replica: Replica) -> Program:
    """The script of the tools' image, with our `temporal`."""
    return _script(topology, replica)


def rabbitmq(topology: Topology, replica: Replica) -> Program:
    """A node of our own, with a port mapper of its own."""
    here, address = topology.volume("rabbitmq"), replica.address
    (here / "enabled_plugins").write_text("[].\n")
    mapper = str(_free_port())
    return Program(
        (RABBITMQ,),
        ready=f"{address}:5672",
        beside=("epmd", "-port", mapper, "-address", "127.0.0.1"),
        environment={
            "HOME": str(here),
            "ERL_EPMD_PORT": mapper,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(_free_port()),
            "RABBITMQ_NODENAME": "orchestrator@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": address,
            "RABBITMQ_NODE_PORT": "5672",
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_PID_FILE": f"{here}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/rabbitmq-env.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none",
            # So the script gives way to the broker, which then ends with us.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
        },
    )


def _free_port() -> int:
    """Outside the range of outgoing connections, one of which could take it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def redis(topology: Topology, replica: Replica) -> Program:
    """The command of its container, at its own address and in its own folder."""
    script = topology.services["redis"]["command"][-1].replace("$$", "$")
    folder = topology.volume("redis")
    place = f"--bind {replica.address} --port 6379 --dir {folder}"
    return Program(("sh", "-c", f"{script} {place}"), ready=f"{replica.address}:6379")


def agents(topology: Topology, replica: Replica) -> Program:
    """The sample agents, as in the image."""
    service = topology.services["agents"]
    words = [
        topology.rendered(each, replica) for each in (*service["entrypoint"], *service["command"])
    ]
    return Program((sys.executable, *words[1:]), ready=f"http://{replica.address}:8100/")


def worker(topology: Topology, replica: Replica) -> Program:
    """``orchestrator worker`` with what the image and the service tell it."""
    return _orchestrator(topology, replica, f"http://{replica.address}:9090/ready")


def api(topology: Topology, replica: Replica) -> Program:
    """``orchestrator api`` likewise."""
    return _orchestrator(topology, replica, f"http://{replica.address}:8000/ready")


def _orchestrator(topology: Topology, replica: Replica, ready: str) -> Program:
    image = {
        "ORCHESTRATOR_AGENT__HOST": replica.address,
        "ORCHESTRATOR_CONFIG": topology.rendered("/app/config.yaml", replica),
    }
    command = (str(BIN / "orchestrator"), *topology.services[replica.service]["command"])
    return Program(command, ready=ready, environment=image)


def proxy(topology: Topology, replica: Replica) -> Program:
    """HAProxy with the file of its container; here nobody resolves names, so addresses are told."""
    servers = topology.directory / "servers.cfg"
    lines = [
        f"    server {each.name} {each.address}:8000 check" for each in topology.replicas["api"]
    ]
    servers.write_text("\n".join(["backend api", *lines, ""]))
    common = ROOT / "deploy" / "proxy" / "haproxy.cfg"
    command = ("haproxy", "-f", str(common), "-f", str(servers))
    return Program(command, ready=f"http://{replica.address}:8404/live")


def prometheus(topology: Topology, replica: Replica) -> Program:
    """Prometheus with the file of its container; names are told as addresses."""
    source = ROOT / "deploy" / "prometheus"
    document = yaml.safe_load((source / "compose.yml").read_text())
    document["rule_files"] = [str(source / name) for name in document["rule_files"]]
    for job in document["scrape_configs"]:
        for found in job.pop("dns_sd_configs", []):
            replicas = (each for name in found["names"] for each in topology.replicas[name])
            targets = [f"{each.address}:{found['port']}" for each in replicas]
            job["static_configs"] = [{"targets": targets}]
    file = topology.directory / "prometheus.yml"
    file.write_text(topology.located(yaml.safe_dump(document)))
    data = topology.volume("prometheus")
    options = (f"--config.file={file}", f"--storage.tsdb.path={data}")
    listen = f"--web.listen-address={replica.address}:9090"
    ready = f"http://{replica.address}:9090/-/ready"
    return Program(("prometheus", *options, listen), ready=ready)


PROGRAMS: dict[str, Callable[[Topology, Replica], Program]] = {
    "secrets": secrets,
    "postgresql": postgresql,
    "temporal-schema": temporal_schema,
    "temporal": temporal,
    "temporal-namespace": temporal_namespace,
    "rabbitmq": rabbitmq,
    "redis": redis,
    "agents": agents,
    "worker": worker,
    "api": api,
    "proxy": proxy,
    "prometheus": prometheus,
}
"""The services that a machine can run.

Not Temporal's Web UI, Grafana and Jaeger: no package has them.
"""


def programs(*, with_postgresql: bool) -> dict[str, Callable[[Topology, Replica], Program]]:
    """Those that this machine can run; the engine with its database, or the development server."""
    chosen = dict(PROGRAMS)
    if not with_postgresql:
        del chosen["postgresql"], chosen["temporal-schema"]
        chosen["temporal"] = development_server
    if not shutil.which("prometheus"):
        del chosen["prometheus"]
    return chosen
