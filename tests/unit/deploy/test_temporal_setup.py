"""deploy/temporal: the server's settings, and how its databases and namespace are made."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.engine.embedded import DYNAMIC_CONFIG
from orchestrator.engine.search_attributes import TYPES

FOLDER = Path(__file__).parents[3] / "deploy" / "temporal"
SETTINGS: dict[str, Any] = yaml.safe_load((FOLDER / "dynamicconfig.yaml").read_text())
CONSTRAINTS = {"namespace", "taskQueueName", "taskType", "shardId"}

# A `temporal` that writes down what it is asked, and fails where the test wants it to.
STAND_IN = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in $FAILING) echo "no such thing" >&2; exit 1;; esac
"""


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_has_the_servers_form(name: str) -> None:
    """A dotted name, and a list of values with the constraints that the server knows."""
    assert re.fullmatch(r"(frontend|history|matching|system|limit)(\.\w+)+", name)
    for entry in SETTINGS[name]:
        assert "value" in entry
        assert set(entry) <= {"value", "constraints"}
        assert set(entry.get("constraints", {})) <= CONSTRAINTS


def test_queues_behave_as_on_the_embedded_engine() -> None:
    """Priority and fairness are the same in production as on a laptop."""
    embedded = {name: yaml.safe_load(text) for name, text in DYNAMIC_CONFIG.items()}
    expected = {name: value for name, value in embedded.items() if name.startswith("matching.")}
    actual = {name: entries[0]["value"] for name, entries in SETTINGS.items()}
    assert expected.items() <= actual.items()


def test_every_setting_is_explained() -> None:
    """A comment stands before each setting, or before the pair that it belongs to."""
    text = (FOLDER / "dynamicconfig.yaml").read_text()
    blocks = [block for block in text.split("\n\n") if re.search(r"^\w", block, re.MULTILINE)]
    assert [] == [block for block in blocks if not block.startswith("# ")]


def test_registered_search_attributes_are_those_of_tasks() -> None:
    """The script names every attribute of the code with its type, and no other."""
    script = (FOLDER / "namespace.sh").read_text()
    registered = re.findall(r"--name (\w+) --type (\w+)", script)
    assert TYPES == dict(registered)


def set_up_namespace(folder: Path, failing: str = "nothing") -> tuple[int, str, list[str]]:
    """Run namespace.sh with a stand-in for `temporal`; its exit code, errors and calls."""
    calls = folder / "calls"
    for name, text in (("temporal", STAND_IN), ("sleep", "#!/bin/sh\n")):
        program = folder / name
        program.write_text(text)
        program.chmod(stat.S_IRWXU)
    environ = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "FAILING": failing,
        "TEMPORAL_NAMESPACE": "here",
        "RETENTION": "7d",
    }
    done = subprocess.run(
        ["sh", FOLDER / "namespace.sh"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr, calls.read_text().splitlines()


def test_new_namespace_is_made_with_its_retention(tmp_path: Path) -> None:
    """Where the server knows no such namespace, it is created."""
    code, _, calls = set_up_namespace(tmp_path, failing="*describe*")
    assert 0 == code
    assert "operator namespace create --namespace here --retention 7d" in calls


def test_namespace_that_exists_is_left_alone(tmp_path: Path) -> None:
    """A second start changes nothing about the namespace."""
    code, _, calls = set_up_namespace(tmp_path)
    assert 0 == code
    assert [] == [call for call in calls if "namespace create" in call]


def test_namespace_script_ends_when_attributes_can_be_used(tmp_path: Path) -> None:
    """The last call asks for tasks by the new attributes, which is what its users will do."""
    _, _, calls = set_up_namespace(tmp_path)
    assert "OrchestratorAgent = 'none'" in calls[-1]


def test_namespace_script_gives_up_with_the_reason(tmp_path: Path) -> None:
    """A server that never answers ends the script with one line that says so."""
    code, errors, _ = set_up_namespace(tmp_path, failing="*health*")
    expected = "gave up: temporal operator cluster health: no such thing\n"
    assert (1, expected) == (code, errors)


@pytest.mark.parametrize("database", ["temporal", "temporal_visibility"])
def test_schema_script_prepares_each_database(database: str, tmp_path: Path) -> None:
    """Each database is made if need be, gets its version table, and then the newest schema."""
    calls = tmp_path / "calls"
    tool = tmp_path / "temporal-sql-tool"
    tool.write_text(STAND_IN)
    tool.chmod(stat.S_IRWXU)
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "FAILING": "nothing",
    }
    subprocess.run(["sh", FOLDER / "schema.sh"], env=environ, timeout=60, check=True)
    lines = [line.split() for line in calls.read_text().splitlines()]
    expected = ["create-database", "setup-schema", "update-schema"]
    assert expected == [words[2] for words in lines if words[1] == database]
