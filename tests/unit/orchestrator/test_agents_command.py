"""`orchestrator agents` and `dead-letters`, as far as they need no API."""

import os

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import orchestrator
from tests.support.stack import free_port


def run(*arguments: str) -> Result:
    """Run a command where no API answers."""
    own = {name: None for name in os.environ if name.startswith("ORCHESTRATOR_")}
    env = {**own, "ORCHESTRATOR_URL": f"http://127.0.0.1:{free_port()}"}
    return CliRunner().invoke(orchestrator, [*arguments], env=env)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["agents", "limit", "reader", "--mode", "never"], "Invalid value for '--mode'"),
        (["agents", "drain"], "Missing argument 'AGENT'"),
        (["agents", "drain", " "], "names nothing"),
        (["agents", "--json", "drain", "reader"], "Put the options after drain."),
        (["agents", "dran", "reader"], "No such command 'dran'"),
        (["dead-letters", "redrive"], "Name one of: a task, what to select such as --agent"),
        (["dead-letters", "discard", "unknown", "--all"], "Name one of"),
        (["dead-letters", "--agent", "reader", "redrive"], "Put the options after redrive."),
        (["dead-letters", "--since", "yesterday"], "is not a time such as"),
    ],
)
def test_a_wrong_command_is_told_what_is_wrong(arguments: list[str], words: str) -> None:
    """Before anything is asked of the API."""
    result = run(*arguments)
    assert 2 == result.exit_code
    assert words in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["agents"],
        ["agents", "show", "reader"],
        ["agents", "drain", "reader"],
        ["agents", "events"],
        ["dead-letters"],
    ],
)
def test_without_an_api_one_line_says_so(arguments: list[str]) -> None:
    """With its address, and no traceback."""
    result = run(*arguments, "--retry-for", "0")
    assert (5, "", 1) == (result.exit_code, result.stdout, len(result.stderr.splitlines()))
    assert "http://127.0.0.1:" in result.stderr
