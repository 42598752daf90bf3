"""The Dockerfile's steps, carried out in an empty folder: what they copy is all that is needed.

Left out is what needs root (users), and a network (the locked dependencies): the tests' own are
lent, without the project beside them.
"""

import json
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.support.dockerfile import instructions, reaches_the_builder, stages
from tests.support.stack import BIN, ROOT

SYSTEM = "/usr/local/bin:/usr/bin:/bin"
BESIDE = {
    Path("examples/README.md"),
    *(Path("examples/documents/source") / name for name in ("document.html", "test.html")),
}
"""What is no part of the program: a guide, and what the sample documents were made from."""
_OWN_FOLDERS = re.compile(r"(?<![\w.])/(?=(opt|src|app|data)\b)")
"""Those that the image has, and the base does not."""


@dataclass
class Image:
    """A folder that stands for the file system; steps of both stages meet in /opt/venv only."""

    root: Path
    place: Path = Path()
    variables: dict[str, str] = field(default_factory=dict)

    def located(self, text: str) -> str:
        """A text whose paths are inside."""
        return _OWN_FOLDERS.sub(f"{self.root}/", text)

    def carry_out(self, stage: list[tuple[str, str]]) -> None:
        """The steps of a stage, in order."""
        for name, rest in stage:
            if name == "WORKDIR":
                self.place = Path(self.located(rest))
                self.place.mkdir(parents=True)
            elif name == "ENV":
                self.set(rest)
            elif name == "COPY":
                self.copy(rest.split())
            elif name == "RUN":
                self.run(self.located(rest))

    def set(self, pairs: str) -> None:
        """Variables of what runs later."""
        for pair in pairs.split():
            name, _, value = pair.partition("=")
            self.variables[name] = self.located(value.replace("$PATH", SYSTEM))

    def copy(self, words: list[str]) -> None:
        """What .dockerignore lets through; a folder's contents go into the target."""
        *sources, target = words
        if sources[0] == "--from=build":
            assert sources[1:] == [target], "the stages meet in the same folder"
            return
        for source in sources:
            for path in _files(source):
                inside = path.relative_to(source) if source.endswith("/") else path
                to = self.place / target / inside
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, to)

    def run(self, command: str) -> None:
        """By the shell, with pip and Python of the tests."""
        if "--require-hashes" in command:
            self.lend_dependencies()
        elif not command.startswith("groupadd"):
            own = {"PATH": f"{BIN}:{SYSTEM}", "HOME": str(self.root), "PIP_NO_INDEX": "1"}
            done = _run(["sh", "-c", command], self.place, own)
            assert 0 == done.returncode, done.stdout + done.stderr

    def lend_dependencies(self) -> None:
        """Those of the tests; a .pth file among them, as of the project itself, has no effect."""
        [packages] = (self.root / "opt" / "venv" / "lib").glob("python*/site-packages")
        (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def says(self, *command: str) -> str:
        """What a command says that a container of this image would run."""
        program = shutil.which(command[0], path=self.variables["PATH"])
        assert program, command
        assert Path(program).is_relative_to(self.root)
        done = _run([program, *command[1:]], self.place, self.variables)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout


def _files(source: str) -> list[Path]:
    """The files of a source that reach the builder, seen from the repository's root."""
    start = ROOT / source
    found = [start] if start.is_file() else [each for each in start.rglob("*") if each.is_file()]
    paths = [each.relative_to(ROOT) for each in found]
    return [each for each in paths if reaches_the_builder(str(each))]


def _run(
    command: list[str], place: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=place, env=variables, capture_output=True, text=True, timeout=150, check=False
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Built once; the sources are gone by then, as they are from the image."""
    built = Image(tmp_path_factory.mktemp("image").resolve())
    build, final = stages()
    built.carry_out(build)
    shutil.rmtree(built.place)
    built.carry_out(final)
    return built


def test_shipped_configuration_is_understood(image: Image) -> None:
    """By the image's entry point, which looks where the image says."""
    [entrypoint] = [json.loads(rest) for name, rest in instructions() if name == "ENTRYPOINT"]
    assert "The configuration is right" in image.says(*entrypoint, "config", "check")


@pytest.mark.parametrize("command", ["run", "api", "worker"])
def test_each_part_can_be_started(image: Image, command: str) -> None:
    """Nothing is missing of what it imports."""
    assert f"orchestrator {command}" in image.says("orchestrator", command, "--help")


def test_sample_agents_can_be_started(image: Image) -> None:
    """By the command of docker-compose.yml."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert "--port" in image.says(*services["agents"]["entrypoint"], "--help")


def test_every_file_of_the_project_is_installed(image: Image) -> None:
    """The dashboard and the sample documents too; and nothing is found beside the image."""
    packages = image.says("python", "-c", "import api, os; print(os.path.dirname(api.__path__[0]))")
    place = Path(packages.strip())
    folders = [
        source
        for name, rest in stages()[0]
        if name == "COPY"
        for source in rest.split()[:-1]
        if source.endswith("/")
    ]

    assert place.is_relative_to(image.root)
    wanted = {path for folder in folders for path in _files(folder)} - BESIDE
    assert [] == sorted(str(path) for path in wanted if not (place / path).is_file())
