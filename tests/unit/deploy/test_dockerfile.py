"""Dockerfile and .dockerignore: the image holds all of the project, and nothing else."""

import json
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import COMMANDS
from orchestrator.config_file import load
from orchestrator.errors import StartupError
from orchestrator.security.exposure import check_exposure
from tests.support.dockerfile import instructions, reaches_the_builder, stages

ROOT = Path(__file__).parents[3]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def final(name: str) -> list[str]:
    """The arguments of every such instruction in the last stage."""
    return [arguments for each, arguments in stages()[-1] if each == name]


def copied() -> list[str]:
    """The sources that are copied from the repository."""
    arguments = [rest.split() for name, rest in instructions() if name == "COPY"]
    local = [words for words in arguments if not words[0].startswith("--from=")]
    return [source.rstrip("/") for *sources, _ in local for source in sources]


def image_environment() -> dict[str, str]:
    """The variables that the image sets."""
    pairs = [pair.partition("=") for line in final("ENV") for pair in line.split()]
    return {name: value for name, _, value in pairs}


def test_stages_share_one_pinned_base() -> None:
    """The environment is built on the very Python that runs it."""
    bases = {rest.split()[0] for name, rest in instructions() if name == "FROM"}
    assert 2 == len(stages())
    [base] = bases
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm", base)


def test_base_is_a_python_that_the_project_supports() -> None:
    """The image's Python is not older than the project allows."""
    image = stages()[0][0][1].split(":")[1]
    minor = [int(part) for part in image.split("-")[0].split(".")[:2]]
    required = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert minor >= [int(part) for part in required.split(".")]


def test_image_runs_without_root() -> None:
    """The last user is a number other than 0."""
    user = final("USER")[-1].split(":")[0]
    assert int(user) > 0


def test_final_stage_installs_nothing() -> None:
    """No package manager has run in the image that ships."""
    assert [] == [line for line in final("RUN") if re.search(r"\b(apt|apt-get|pip|curl)\b", line)]


def test_dependencies_are_the_locked_ones() -> None:
    """Every package is installed by its hash, and the project without any other."""
    installs = [rest for name, rest in instructions() if name == "RUN" and " install " in rest]
    pips = [line for line in installs if line.startswith("pip ")]
    [dependencies, project] = pips
    assert "--require-hashes -r requirements.txt" in dependencies
    assert "--no-deps --no-build-isolation ." in project


def test_copied_paths_exist() -> None:
    """Every source of a COPY is there."""
    assert [] == [path for path in copied() if not (ROOT / path).exists()]


def test_whole_project_is_copied() -> None:
    """Every package and module that pyproject.toml names is in the image, and its own files."""
    setuptools = PROJECT["tool"]["setuptools"]
    packages = {name.rstrip("*") for name in setuptools["packages"]["find"]["include"]}
    modules = {f"{name}.py" for name in setuptools["py-modules"]}
    others = {"pyproject.toml", "requirements.txt", "config.yaml", PROJECT["project"]["readme"]}
    assert set() == (packages | modules | others) - set(copied())


@pytest.mark.parametrize("path", copied())
def test_copied_path_reaches_the_builder(path: str) -> None:
    """.dockerignore holds back nothing that the Dockerfile copies."""
    files = [each for each in (ROOT / path).rglob("*") if each.is_file()] or [ROOT / path]
    names = [str(each.relative_to(ROOT)) for each in files if "__pycache__" not in each.parts]
    assert [] == [name for name in names if not reaches_the_builder(name)]


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".data/engine.sqlite",
        ".venv/bin/python",
        "tests/unit/deploy/test_dockerfile.py",
        "api/.env",
        "api/__pycache__/app.cpython-311.pyc",
    ],
)
def test_private_path_stays_outside(path: str) -> None:
    """Secrets, data, history and leftovers never reach the builder."""
    assert not reaches_the_builder(path)


def test_image_holds_no_secrets() -> None:
    """No variable of the image is one for a secret."""
    names = [rest for name, rest in instructions() if name in {"ENV", "ARG"}]
    assert [] == [line for line in names if re.search(r"PASSWORD|SECRET|TOKEN|API_KEY", line)]


def test_image_listens_on_every_address() -> None:
    """A published port of the container leads to the API."""
    settings = load(ROOT / "config.yaml", image_environment())
    assert "0.0.0.0" == settings.agent.host  # noqa: S104 - inside the container


def test_image_is_open_to_nobody_by_itself() -> None:
    """It starts with keys, or where somebody says on purpose that nobody is asked."""
    with pytest.raises(StartupError, match="allow_anonymous"):
        check_exposure(load(ROOT / "config.yaml", image_environment()))


def test_configuration_is_where_the_image_looks() -> None:
    """A file that is mounted at /app/config.yaml is the one that is read."""
    [workdir] = final("WORKDIR")
    assert ["config.yaml ./"] == [line for line in final("COPY") if "config.yaml" in line]
    assert f"{workdir}/config.yaml" == image_environment()["ORCHESTRATOR_CONFIG"]


def test_ports_are_those_of_the_configuration() -> None:
    """What the image exposes is what the shipped configuration opens."""
    settings = load(ROOT / "config.yaml", image_environment())
    expected = f"{settings.agent.port} {settings.monitoring.metrics_port}"
    assert [expected] == final("EXPOSE")


def test_image_starts_a_command_of_ours() -> None:
    """In exec form, so that a signal to the container reaches the orchestrator."""
    [entrypoint], [command] = final("ENTRYPOINT"), final("CMD")
    assert ["orchestrator"] == json.loads(entrypoint)
    [name] = json.loads(command)
    assert name in entry_points(group=COMMANDS).names


def test_image_checks_its_health() -> None:
    """The image asks whether the API lives, with the Python that it has."""
    [check] = final("HEALTHCHECK")
    program = json.loads(check.partition("CMD ")[2])
    assert ["python", "-c"] == program[:2]
    assert "http://127.0.0.1:8000/live" in program[2]
