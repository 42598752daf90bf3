"""docker-compose.yml: the right form, pinned, in order, and understood by the orchestrator."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import COMMANDS
from orchestrator.config import Settings
from orchestrator.config_file import load

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
TOOLS = {"temporal-schema", "temporal-namespace"}
JOBS = TOOLS | {"secrets"}
OURS = ["api", "worker"]

_VARIABLE = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")
_PINNED = re.compile(r"[a-z0-9./-]+:v?\d+(\.\d+)+(-[a-z0-9.]+)?")
_SECRET = re.compile(r"PASSWORD|PWD|KEY|SECRET|TOKEN")

DEPENDENCIES = [
    (dependent, needed, how["condition"])
    for dependent, service in SERVICES.items()
    for needed, how in service.get("depends_on", {}).items()
]


def with_defaults(value: Any) -> str:
    """A value as Compose understands it where none of its variables is set."""
    return _VARIABLE.sub(lambda match: match["default"], str(value))


def environment(service: str) -> dict[str, str]:
    """The environment that Compose gives a service where no variable is set."""
    variables = SERVICES[service].get("environment", {})
    return {name: with_defaults(value) for name, value in variables.items()}


def settings_in(service: str) -> Settings:
    """The settings that a service understands."""
    return load(ROOT / "config.yaml", without_files(environment(service)))


def without_files(variables: dict[str, str]) -> dict[str, str]:
    """The variables but those of secrets' files, which only a container has."""
    return {k: v for k, v in variables.items() if not k.endswith("SECRET_FILE")}


def check(file: Path) -> subprocess.CompletedProcess[str]:
    """Validate a file against the Compose schema."""
    arguments = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_compose_file_follows_the_schema() -> None:
    """The Compose specification's own schema finds nothing wrong."""
    done = check(COMPOSE)
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("condition: service_healthy", "condition: service_happy"),
        ("interval: 5s", "interval: [5]"),
        ("restart: unless-stopped", "restarts: unless-stopped"),
        ("services:", "service:"),
    ],
)
def test_broken_compose_file_fails_the_schema(right: str, wrong: str, tmp_path: Path) -> None:
    """The check is a real one: it finds a value, a type and a name that are wrong."""
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace(right, wrong))
    assert 1 == check(broken).returncode


@pytest.mark.parametrize("service", SERVICES)
def test_image_is_pinned_to_a_release(service: str) -> None:
    """A tag is a full version, so that the same file starts the same programs."""
    image = SERVICES[service]["image"]
    assert _PINNED.fullmatch(image), image


@pytest.mark.parametrize("service", ["agents", *OURS])
def test_own_image_carries_the_version(service: str) -> None:
    """The image that is built is tagged with the version of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = f"{project['name']}:{project['version']}"
    assert expected == SERVICES[service]["image"]


def test_tools_are_of_the_servers_release() -> None:
    """The schema that is set up is the one that the server expects."""
    expected = SERVICES["temporal"]["image"].partition(":")[2]
    assert {expected} == {SERVICES[job]["image"].partition(":")[2] for job in TOOLS}


@pytest.mark.parametrize(("dependent", "needed", "condition"), DEPENDENCIES)
def test_dependency_can_be_met(dependent: str, needed: str, condition: str) -> None:
    """Who must be healthy has a health check, and who must complete does end."""
    del dependent
    assert needed in SERVICES
    if condition == "service_healthy":
        assert "test" in SERVICES[needed]["healthcheck"]
    else:
        assert "service_completed_successfully" == condition
        assert needed in JOBS


@pytest.mark.parametrize("service", OURS)
def test_orchestrator_waits_for_the_namespace(service: str) -> None:
    """API and worker start when the namespace and its search attributes are there."""
    assert (service, "temporal-namespace", "service_completed_successfully") in DEPENDENCIES


@pytest.mark.parametrize("service", SERVICES)
def test_service_comes_back_and_job_does_not(service: str) -> None:
    """Whatever serves is started again after a crash; the set-up jobs run once."""
    expected = "no" if service in JOBS else "unless-stopped"
    assert expected == SERVICES[service]["restart"]


def test_published_ports_are_local() -> None:
    """Only this machine reaches the API and the pages of the others, and nothing else."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    expected = {"8000:8000", "8233:8080", "9090:9090", "3000:3000", "16686:16686"}
    assert {f"127.0.0.1:{each}" for each in expected} == set(published)


def test_api_asks_for_keys_where_it_is_told_to() -> None:
    """Behind ports of this machine it asks nobody; `ALLOW_ANONYMOUS=false` goes with keys."""
    assert settings_in("api").security.allow_anonymous
    given = SERVICES["api"]["environment"]["ORCHESTRATOR_SECURITY__ALLOW_ANONYMOUS"]
    assert "${ALLOW_ANONYMOUS:-true}" == given


@pytest.mark.parametrize("service", SERVICES)
def test_secret_comes_from_the_environment(service: str) -> None:
    """A password or key is a variable, at most with a default for tries."""
    variables = SERVICES[service].get("environment", {})
    secrets = {
        name: str(value)
        for name, value in variables.items()
        if _SECRET.search(name) and not (name == "SECRETS" or name.endswith("_FILE"))
    }
    assert [] == [name for name, value in secrets.items() if not _VARIABLE.fullmatch(value)]


@pytest.mark.parametrize("service", OURS)
def test_secret_that_all_share_comes_from_the_volume(service: str) -> None:
    """Every file that is named is one that the job makes, in the volume that both mount."""
    named = {v for k, v in environment(service).items() if k.endswith("_FILE")}
    made = re.findall(r"^keep (\w+) ", (ROOT / "deploy" / "secrets.sh").read_text(), re.MULTILINE)
    assert {f"{environment('secrets')['SECRETS']}/{name}" for name in made} == named
    assert f"secrets:{environment('secrets')['SECRETS']}:ro" in SERVICES[service]["volumes"]


def test_secrets_are_made_once_and_can_be_given(tmp_path: Path) -> None:
    """What is there stays, but for what a variable gives; nobody else may read it."""

    def make(**given: str) -> dict[str, str]:
        command = ["sh", str(ROOT / "deploy" / "secrets.sh")]
        subprocess.run(command, env={"SECRETS": str(tmp_path), **given}, check=True, timeout=30)
        return {file.name: file.read_text() for file in tmp_path.iterdir()}

    first, second = make(), make(SESSION_SECRET="s" * 40)
    load(None, {"ORCHESTRATOR_CALLBACKS__SECRET_FILE": str(tmp_path / "callbacks")})
    assert first | {"session": "s" * 40} == second
    assert {0o600} == {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}


@pytest.mark.parametrize("service", OURS)
def test_there_are_two_of_each(service: str) -> None:
    """One may go without the whole going with it."""
    assert 2 == SERVICES[service]["deploy"]["replicas"]


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_bounded_and_confined(service: str) -> None:
    """Limits of memory and processors, no capabilities, and but for one a read-only image."""
    told = SERVICES[service]
    assert {"cpus", "memory"} == set(told["deploy"]["resources"]["limits"])
    assert (["ALL"], ["no-new-privileges:true"]) == (told["cap_drop"], told["security_opt"])
    assert told["read_only"] is (service != "temporal-ui")


@pytest.mark.parametrize("service", sorted(set(SERVICES) - JOBS))
def test_service_that_serves_has_a_health_check(service: str) -> None:
    """Whatever goes on can be asked how it is."""
    assert "test" in SERVICES[service]["healthcheck"]


@pytest.mark.parametrize("service", OURS)
def test_orchestrator_connects_to_the_server(service: str) -> None:
    """The variables are ones that the configuration knows, and lead to Temporal."""
    temporal = settings_in(service).temporal
    expected = ("temporal:7233", environment("temporal-namespace")["TEMPORAL_NAMESPACE"])
    assert expected == (temporal.target, temporal.namespace)


@pytest.mark.parametrize("service", OURS)
def test_orchestrator_finds_the_sample_agents(service: str) -> None:
    """Every instance of the shipped configuration is at the service `agents`, on its port."""
    agents = settings_in(service).agents.values()
    port = SERVICES["agents"]["command"][-1]
    addresses = {each.url.rpartition("/")[0] for agent in agents for each in agent.instances}
    assert {f"http://agents:{port}"} == addresses


@pytest.mark.parametrize("service", OURS)
def test_other_engine_is_a_matter_of_variables(service: str) -> None:
    """An API key and TLS, as Temporal Cloud wants them, can be given from outside."""
    given = {"TEMPORAL_TLS": "true", "TEMPORAL_API_KEY": "key"}
    variables = {
        name: _VARIABLE.sub(lambda match: given.get(match["name"], match["default"]), value)
        for name, value in SERVICES[service]["environment"].items()
    }
    temporal = load(ROOT / "config.yaml", without_files(variables)).temporal
    assert temporal.tls is not None
    assert temporal.api_key is not None
    assert (True, "key") == (temporal.tls.enabled, temporal.api_key.get_secret_value())


@pytest.mark.parametrize("service", OURS)
def test_command_is_one_of_ours(service: str) -> None:
    """What the container runs is a command of `orchestrator`."""
    [command] = SERVICES[service]["command"]
    assert command in entry_points(group=COMMANDS).names


@pytest.mark.parametrize("service", SERVICES)
def test_mounted_files_exist(service: str) -> None:
    """A path of this repository that a service mounts is there, and stays as it is."""
    mounts = [each.split(":") for each in SERVICES[service].get("volumes", [])]
    local = [mount for mount in mounts if mount[0].startswith(".")]
    assert all((ROOT / source).exists() for source, *_ in local)
    assert all(mode == ["ro"] for _, _, *mode in local)


def test_dynamic_configuration_is_where_the_server_looks() -> None:
    """The mounted directory holds the file that the server is told to read."""
    [mount] = SERVICES["temporal"]["volumes"]
    source, target, _ = mount.split(":")
    file = Path(environment("temporal")["DYNAMIC_CONFIG_FILE_PATH"])
    assert (ROOT / source / file.relative_to(target)).is_file()


def test_every_variable_is_documented() -> None:
    """docs/docker.md names each variable with its default."""
    page = (ROOT / "docs" / "docker.md").read_text()
    variables = {
        (match["name"], match["default"]) for match in _VARIABLE.finditer(COMPOSE.read_text())
    }
    rows = [
        f"| `{name}` | " + (f"`{default}`" if default else "none") + " |"
        for name, default in sorted(variables)
    ]
    assert [] == [row for row in rows if row not in page]
