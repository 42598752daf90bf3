"""The command line."""

import gc
import json
import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from orchestrator import cli
from orchestrator.cli import COMMANDS, orchestrator
from orchestrator.config import Settings

ROOT = Path(__file__).parents[3]
GOOD = """\
agents: {reader: {instances: [{url: "http://h:1"}], headers: {Authorization: s314159}}}
temporal: {address: "h:7233", api_key: s314159}
callbacks: {secret: whsec_czMxNDE1OXMzMTQxNTlzMzE0MTU5czMxNDE1OQ==}
routing_rules:
  - {pattern: upload_pdf, target_agent: reader, endpoint: /ingest, timeout: 300}
"""
BAD = "agnet: {}\nagent: {port: x}\nrouting_rules: [{pattern: p, target_agent: a, endpoint: x}]\n"


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run the command within this process, without this process's own settings."""
    own = {name: None for name in os.environ if name.startswith("ORCHESTRATOR_")}
    return CliRunner().invoke(orchestrator, list(arguments), env={**own, **(env or {})})


def config(folder: Path, text: str) -> str:
    """A configuration file."""
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def check(folder: Path, text: str, *options: str) -> Result:
    """``orchestrator config check`` of the text."""
    return run("config", "check", config(folder, text), *options)


def test_a_good_configuration_is_shown(tmp_path: Path) -> None:
    """Every rule with what it means, and exit code 0."""
    result = check(tmp_path, GOOD)
    assert (0, "") == (result.exit_code, result.stderr)
    for text in ("upload_pdf", "exact", "reader", "/ingest", "300 s", "queued"):
        assert text in result.stdout
    assert "The configuration is right: 1 routing rules, 1 agents, engine h:7233." in result.stdout


def test_the_shipped_configuration_is_good() -> None:
    """All of its patterns are in the table."""
    result = run("config", "check", str(ROOT / "config.yaml"))
    assert 0 == result.exit_code
    assert "18 routing rules, 18 agents, engine embedded" in result.stdout


@pytest.mark.parametrize("pattern", ["[a-z]*", "x[/ab]*", "[bold]?", "[link=x]*", "a[*]"])
def test_patterns_are_shown_as_they_are(tmp_path: Path, pattern: str) -> None:
    """Brackets in a pattern are no colours."""
    result = check(tmp_path, GOOD.replace("upload_pdf", f"'{pattern}'"))
    assert 0 == result.exit_code
    assert pattern in result.stdout


def test_a_bad_configuration_is_explained(tmp_path: Path) -> None:
    """All problems on stderr, one a line, exit code 2, and nothing else."""
    result = check(tmp_path, BAD)
    lines = result.stderr.splitlines()
    assert (2, "", 3) == (result.exit_code, result.stdout, len(lines))
    assert all(f"{tmp_path}/config.yaml:" in line for line in lines)


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    """Named by --config or as an argument, it must be there."""
    path = str(tmp_path / "none.yaml")
    for arguments in (["config", "check", path], ["config", "check", "--config", path]):
        result = run(*arguments)
        assert 2 == result.exit_code
        assert f"{path}: cannot be read: No such file or directory\n" == result.stderr


def test_json_is_the_whole_configuration_without_secrets(tmp_path: Path) -> None:
    """A program can read it, and nobody learns a key from it."""
    result = check(tmp_path, GOOD, "--json")
    shown = json.loads(result.stdout)
    assert set(Settings.model_fields) == set(shown)
    assert 300.0 == shown["routing_rules"][0]["timeout"]
    assert "314159" not in result.output
    assert "whsec_" not in result.output


def test_nothing_shows_secrets(tmp_path: Path) -> None:
    """Nor does anybody learn one from the table, or from a problem."""
    assert "314159" not in check(tmp_path, GOOD).output
    assert "whsec_" not in check(tmp_path, GOOD).output
    assert "314159" not in check(tmp_path, GOOD.replace("s314159", "314159")).output


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    """ORCHESTRATOR_CONFIG stands for --config."""
    result = run("config", "check", env={"ORCHESTRATOR_CONFIG": config(tmp_path, GOOD)})
    assert "1 routing rules" in result.stdout


def test_the_environment_overrides_values(tmp_path: Path) -> None:
    """As in every other command."""
    env = {"ORCHESTRATOR_ROUTING_RULES__0__TIMEOUT": "17"}
    result = run("config", "check", "--json", config(tmp_path, GOOD), env=env)
    assert 17.0 == json.loads(result.stdout)["routing_rules"][0]["timeout"]


def commands() -> list[list[str]]:
    """Every command, with its subcommands."""
    found: list[list[str]] = [[]]
    for entry in sorted(entry_points(group=COMMANDS), key=lambda each: each.name):
        command = entry.load()
        names = sorted(command.commands) if isinstance(command, click.Group) else []
        found += [[entry.name], *([entry.name, name] for name in names)]
    return found


def test_the_documented_commands_are_there() -> None:
    """What the documentation tells people to type exists."""
    expected = [["api"], ["config"], ["config", "check"], ["run"], ["worker"]]
    assert all(each in commands() for each in expected)


@pytest.mark.parametrize("command", commands(), ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself(command: list[str], option: str) -> None:
    """A sentence and examples."""
    result = run(*command, option)
    assert 0 == result.exit_code
    assert "Usage: " in result.stdout
    if command != ["config"]:
        assert "Examples:\n" in result.stdout
        assert "  orchestrator " in result.stdout


@pytest.mark.parametrize("broken", [False, True])
def test_no_garbage_is_looked_for_while_a_command_is_loaded(
    monkeypatch: pytest.MonkeyPatch, *, broken: bool
) -> None:
    """And then as before, even if it could not be loaded."""
    seen = []

    class Entry:
        def load(self) -> click.Command:
            seen.append(gc.isenabled())
            if broken:
                raise ImportError
            return click.Command("some")

    monkeypatch.setattr(cli, "entry_points", lambda **_: [Entry()])
    with click.Context(orchestrator) as context, suppress(ImportError):
        orchestrator.get_command(context, "some")
    assert ([False], True) == (seen, gc.isenabled())


def test_the_version() -> None:
    """As installed."""
    assert "orchestrator, version 1.0.0\n" == run("--version").stdout


@pytest.mark.parametrize("arguments", [["rnu"], ["config", "chekc"], ["run", "--prot", "1"]])
def test_a_mistyped_command_is_named(arguments: list[str]) -> None:
    """Usage errors end with 2 and no traceback."""
    result = run(*arguments)
    assert (2, True) == (result.exit_code, "Error: No such " in result.stderr)


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_ports_are_checked(port: str) -> None:
    """Before anything starts."""
    result = run("api", "--port", port)
    assert (2, True) == (result.exit_code, "Invalid value for '--port'" in result.stderr)


@pytest.mark.parametrize("command", ["run", "worker", "api"])
def test_no_part_starts_on_a_bad_configuration(tmp_path: Path, command: str) -> None:
    """Each explains it as ``config check`` does."""
    result = run(command, "--config", config(tmp_path, BAD))
    assert (2, 3) == (result.exit_code, len(result.stderr.splitlines()))


@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), (BAD, 2)])
def test_the_program_ends_with_the_commands_code(tmp_path: Path, text: str, code: int) -> None:
    """As a process: its output arrives, its exit code is the command's, and no traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "orchestrator", "config", "check", config(tmp_path, text)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert code == result.returncode
    assert "Traceback" not in result.stderr
    assert (result.stdout if code == 0 else result.stderr).strip()
