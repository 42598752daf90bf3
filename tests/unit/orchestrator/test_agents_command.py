"""`orchestrator agents`, as far as it needs no engine."""

import os

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import orchestrator
from tests.support.stack import free_port


def run(*arguments: str) -> Result:
    """Run the command where no engine answers."""
    own = {name: None for name in os.environ if name.startswith("ORCHESTRATOR_")}
    env = {
        **own,
        "ORCHESTRATOR_TEMPORAL__ADDRESS": f"127.0.0.1:{free_port()}",
        "ORCHESTRATOR_TEMPORAL__CONNECT_TIMEOUT": "0.3",
    }
    return CliRunner().invoke(orchestrator, ["agents", *arguments], env=env)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["limit", "reader", "--rate", "-1"], "rate: Input should be greater than 0"),
        (["limit", "reader", "--mode", "never"], "Invalid value for '--mode'"),
        (["add-instance", "reader", "nonsense"], "an http:// or https:// URL with a host"),
        (["add-instance", "reader", "http://x", "--weight", "0"], "weight: Input should be"),
        (["drain", "reader", "--reason", "x" * 501], "reason: String should have at most 500"),
        (["drain"], "Missing argument 'NAME'"),
        (["--json", "drain", "reader"], "Put the options after drain."),
        (["dran", "reader"], "No such command 'dran'"),
    ],
)
def test_a_wrong_command_is_told_what_is_wrong(arguments: list[str], words: str) -> None:
    """Before anything is asked of the engine."""
    result = run(*arguments)
    assert 2 == result.exit_code
    assert words in result.stderr


@pytest.mark.parametrize("arguments", [[], ["show", "reader"], ["drain", "reader"], ["events"]])
def test_without_an_engine_one_line_says_so(arguments: list[str]) -> None:
    """With its address, and no traceback."""
    result = run(*arguments)
    assert (1, "", 1) == (result.exit_code, result.stdout, len(result.stderr.splitlines()))
    assert result.stderr.startswith("orchestrator: No engine answers at 127.0.0.1:")
