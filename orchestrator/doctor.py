"""What can be wrong with a product that runs, or is about to; nothing is changed here."""

import asyncio
import errno
import secrets
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import click
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator import __version__
from orchestrator.api_command import Api, environment, explained
from orchestrator.cli import settings_of
from orchestrator.client import ClientError, NotAllowed, OrchestratorClient
from orchestrator.client.connection import DEFAULT_URL
from orchestrator.config import Encryption, Settings
from orchestrator.config_changes import version_of
from orchestrator.endpoints import is_loopback
from orchestrator.engine import search_attributes
from orchestrator.engine.connect import connect
from orchestrator.engine.objects import Objects, objects_of
from orchestrator.engine.payloads import keys_of
from orchestrator.engine.queues import describe_queue, describe_queues
from orchestrator.errors import (
    ConfigurationError,
    OrchestratorError,
    StartupError,
    StorageUnavailable,
)
from orchestrator.fleet.records import HealthState
from orchestrator.fleet.views import AgentView
from orchestrator.models import Model
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.routing import WORKFLOW_QUEUE
from orchestrator.security.key_file import read

PATIENCE_SECONDS = 5.0
_SDK_WORDS = ": Failed client connect"
"""Where the engine's client begins to tell what its libraries told it."""
_FIRST_KEY = "orchestrator keys create --name NAME --tenant TENANT"
_PROBE = "~doctor"
"""Of no namespace: what is written to try a storage."""
_START = "start the product (orchestrator run), or correct --url"


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(Model):
    """One check: what was found, and what has to be done."""

    name: str
    state: State
    found: str
    advice: str = ""


@dataclass(frozen=True)
class _Port:
    """A port of the configuration, and whether what belongs there has answered."""

    name: str
    key: str
    host: str
    number: int
    answers: bool


def examine(api: Api) -> list[Check]:
    """All checks, in the order in which they should be mended."""
    settings, found = _configuration(api)
    from_api, answers = _api(api, settings)
    if settings is None:
        return [found, *from_api]
    from_engine = asyncio.run(_engine(settings))
    running = from_engine[0].state is State.OK
    ports = _ports(settings, api=answers and _is_own(api, settings), engine=running)
    own = [found, access(settings), *payloads(settings)]
    return [*own, *from_engine, *from_api, *map(_port, ports)]


def _is_own(api: Api, settings: Settings) -> bool:
    """Whether the API that was asked is the one of the configuration, by its port."""
    return api.url is None or urlsplit(api.url).port == settings.agent.port


def _configuration(api: Api) -> tuple[Settings | None, Check]:
    try:
        settings = settings_of(api.config_path, environment())
    except ConfigurationError as error:
        words = str(error)
        return None, _fail("configuration", words, "correct it: orchestrator config check")
    if not settings.routing_rules and not settings.agents:
        return settings, _warn(
            "configuration", "no agents and no routing rules", "name the file: --config"
        )
    found = f"{len(settings.routing_rules)} routing rules, {len(settings.agents)} agents"
    return settings, _ok("configuration", found)


def access(settings: Settings) -> Check:
    """Whom the API asks who they are, and whether it knows anybody."""
    section, host = settings.security, settings.agent.host
    if section.keys_file:
        return _keys(section.keys_file, alone=section.jwt is None)
    if section.jwt:
        return _ok("access", f"tokens of {section.jwt.issuer}")
    advice = "make keys (orchestrator keys create) and set security.keys_file"
    if is_loopback(host):
        return _ok("access", "nobody is asked for a key, and only this machine reaches the API")
    if section.allow_anonymous:
        return _warn("access", f"whoever reaches {host} may do everything", advice)
    return _fail("access", f"nobody is asked for a key: the API will not listen on {host}", advice)


def _keys(path: Path, *, alone: bool) -> Check:
    try:
        keys = read(path).keys
    except StartupError as error:
        return _fail("access", str(error), "mend it, or: orchestrator keys create")
    active = sum(key.state(datetime.now(UTC)) == "active" for key in keys)
    found = f"{active} of {len(keys)} keys in force"
    return _ok("access", found) if active or not alone else _warn("access", found, _FIRST_KEY)


def payloads(settings: Settings) -> Iterator[Check]:
    """Whether what tasks carry can be encrypted and stored, where the configuration says so."""
    section = settings.payloads
    if section.encryption.is_on:
        yield _encryption(section.encryption)
    if section.storage.is_on:
        yield _storage(settings)


def _encryption(section: Encryption) -> Check:
    try:
        first, *others = keys_of(section)
    except StartupError as error:
        return _fail("payload encryption", str(error), "see docs/payloads.md")
    does = "encrypts" if section.encrypt else "would encrypt; encrypt is false"
    found = f"key '{first.id}' {does}, {len(others)} more to read by"
    return _ok("payload encryption", found)


def _storage(settings: Settings) -> Check:
    name, section = "payload storage", settings.payloads.storage
    where = section.directory or settings.storage.data_dir / "payloads"
    try:
        if section.type == "directory" and not where.exists():
            # Made here it would be of whoever runs this command.
            advice = "API and worker make it when they start"
            return _warn(name, f"{where} is not there yet", advice)
        objects = objects_of(section, settings.storage.data_dir)
        objects.check()
        return _tried(name, objects)
    except (OrchestratorError, OSError) as error:
        return _fail(name, str(error), "let this user write there, or correct payloads.storage")


def _tried(name: str, objects: Objects) -> Check:
    """Write, read and remove an object."""
    key = f"{_PROBE}/{secrets.token_hex(8)}"
    objects.put(key, _PROBE.encode())
    try:
        told = objects.get(key)
    finally:
        kept = _kept(objects, key)
    if told != _PROBE.encode():
        return _fail(name, f"{objects.place} gives back what was not put there", "replace it")
    if kept:
        advice = f"orchestrator storage clean needs it; {key} was left there"
        return _warn(name, f"can be written and read, not deleted: {kept}", advice)
    return _ok(name, f"{objects.place} can be written, read and deleted")


def _kept(objects: Objects, key: str) -> str:
    """Why the object cannot be deleted; nothing where it was."""
    try:
        objects.delete(key)
    except StorageUnavailable as error:
        return str(error)
    return ""


def _api(api: Api, settings: Settings | None) -> tuple[list[Check], bool]:
    try:
        url = api.url or (api.address() if settings else DEFAULT_URL)
        with OrchestratorClient(url, timeout=PATIENCE_SECONDS, retry_for=0) as client:
            own = settings if settings and _is_own(api, settings) else None
            return list(_asked(client, own)), True
    except ClientError as error:
        return [_fail("API", explained(error), _START)], False
    except ValueError as error:
        raise click.UsageError(f"{error} (--url, ORCHESTRATOR_URL)") from None


def _asked(client: OrchestratorClient, settings: Settings | None) -> Iterator[Check]:
    """What the API answers; with the settings of its file, whether it goes by them."""
    health = client.health()
    found = f"{health.status}, version {health.version}, {health.active_tasks} active tasks"
    if health.status == "unhealthy":
        yield _fail("API", found, "see the engine's check, and the API's log")
    elif health.version != __version__:
        yield _warn("API", found, f"this command is of version {__version__}: bring them together")
    elif health.status != "healthy":
        yield _warn("API", found, "see the checks of the agents")
    else:
        yield _ok("API", found)
    if settings is not None:
        yield _taken_over(health.config_version, version_of(settings))
    try:
        listed = client.agents()
    except ClientError as error:
        advice = (
            "a key with the scope read" if isinstance(error, NotAllowed) else "see the API's log"
        )
        yield _fail("agents", explained(error), advice)
        return
    yield from map(_agent, listed.agents)


def _taken_over(running: str, file: str) -> Check:
    name = "running configuration"
    if running == file:
        return _ok(name, f"version {file}, as the file")
    advice = "see config_refused in the API's log; was the environment the same?"
    return _warn(name, f"the API goes by version {running}, the file is version {file}", advice)


def _agent(agent: AgentView) -> Check:
    name, instances = f"agent {agent.name}", agent.instances
    well = [each for each in instances if each.health.state is HealthState.HEALTHY]
    found = f"{len(well)} of {len(instances)} instances healthy, breaker {agent.breaker}"
    bad = [f"{each.url}: {each.health.reason}" for each in instances if each.health.reason]
    drained = [each.url for each in instances if each.draining]
    if agent.breaker in {BreakerState.OPEN, BreakerState.FORCED_OPEN}:
        return _fail(name, found, f"mend the agent, or: orchestrator reset {agent.name}")
    if drained:
        state = _warn if len(drained) < len(instances) else _fail
        return state(name, f"{found}, {len(drained)} drained", f"orchestrator resume {agent.name}")
    if len(well) == len(instances) and instances:
        return _ok(name, found)
    advice = f"start it, or correct its URL; {'; '.join(bad)}".rstrip("; ")
    unknown = any(each.health.state is HealthState.UNKNOWN for each in instances)
    return (_warn if well or unknown else _fail)(name, found, advice)


async def _engine(settings: Settings) -> list[Check]:
    temporal = settings.temporal
    patience = min(PATIENCE_SECONDS, temporal.connect_timeout)
    quick = temporal.model_copy(update={"connect_timeout": patience})
    try:
        client = await connect(quick, identity="doctor", register=False)
        timeout = timedelta(seconds=temporal.rpc_timeout)
        attributes = await _attributes(client, timeout)
        workers = await _workers(client, settings, timeout)
    except OrchestratorError as error:
        advice = _START if temporal.is_embedded else "see temporal.address and temporal.namespace"
        return [_fail("engine", str(error).partition(_SDK_WORDS)[0], advice)]
    except RPCError as error:
        return [_fail("engine", f"{temporal.target}: {error.message}", "see the engine's log")]
    found = f"answers at {temporal.target}, namespace {temporal.namespace}"
    return [_ok("engine", found), attributes, *workers]


async def _attributes(client: Client, timeout: timedelta) -> Check:
    lacking = await search_attributes.lacking(client, timeout)
    if not lacking:
        return _ok("search attributes", "all are registered")
    advice = search_attributes.registration_command(client.namespace)
    return _fail("search attributes", f"missing: {', '.join(lacking)}", advice)


async def _workers(client: Client, settings: Settings, timeout: timedelta) -> list[Check]:
    workflows = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
    main = await describe_queue(client, WORKFLOW_QUEUE, timeout, workflows)
    queues = await describe_queues(client, settings.agents, timeout)
    left = [name for name, queue in queues.items() if not queue.has_worker]
    if not main.has_worker:
        return [_fail("workers", "no worker runs workflows", "orchestrator worker")]
    if left:
        found = f"no worker calls {', '.join(left)}"
        return [_fail("workers", found, "start a worker with a configuration that names them")]
    return [_ok("workers", "workflows and the calls of all agents are served")]


def _ports(settings: Settings, *, api: bool, engine: bool) -> Iterable[_Port]:
    host = settings.agent.host
    yield _Port("API", "agent.port", host, settings.agent.port, api)
    if settings.monitoring.enable_metrics:
        number = settings.monitoring.metrics_port
        yield _Port("metrics", "monitoring.metrics_port", host, number, api or engine)
    if settings.temporal.is_embedded:
        own = settings.temporal.embedded
        yield _Port("engine", "temporal.embedded.port", "127.0.0.1", own.port, engine)
        yield _Port("Web UI", "temporal.embedded.ui_port", "127.0.0.1", own.ui_port, engine)


def _port(port: _Port) -> Check:
    name, where = f"port {port.number} ({port.name})", f"{port.host}:{port.number}"
    problem = _bound(port.host, port.number)
    if port.answers:
        return _ok(name, "in use by the product" if problem else "not in use")
    if problem is None:
        return _ok(name, "free")
    advice = f"free it, or set {port.key}"
    if problem == errno.EADDRINUSE:
        return _fail(name, f"another program has {where}", advice)
    return _warn(name, f"{where}: {errno.errorcode.get(problem, problem)}", advice)


def _bound(host: str, number: int) -> int | None:
    """Why a port cannot be listened at, as the system's number; None where it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), number))
        except socket.gaierror:
            return errno.EADDRNOTAVAIL
        except OSError as error:
            return error.errno or errno.EADDRNOTAVAIL
    return None


def _ok(name: str, found: str) -> Check:
    return Check(name=name, state=State.OK, found=found)


def _warn(name: str, found: str, advice: str) -> Check:
    return Check(name=name, state=State.WARN, found=found, advice=advice)


def _fail(name: str, found: str, advice: str) -> Check:
    return Check(name=name, state=State.FAIL, found=found, advice=advice)
