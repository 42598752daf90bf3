"""The error tree."""

import inspect
import re

import pytest

from orchestrator import call_errors, errors


def drawn() -> dict[str, str]:
    """Each class of the picture in the module's docstring, with the one above it."""
    above: list[str] = []
    tree = {}
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        match = re.match(r"(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?:  |$)", line)
        if match and (match["indent"] or match["name"] == "OrchestratorError"):
            depth = len(match["indent"]) // 4
            above[depth:] = [match["name"]]
            tree[match["name"]] = above[depth - 1] if depth else "Exception"
    return tree


def test_the_picture_shows_the_tree() -> None:
    """No class is missing from the picture, and each stands where it belongs."""
    modules = (errors, call_errors)
    classes = [each for module in modules for each in inspect.getmembers(module, inspect.isclass)]
    expected = {
        name: kind.__bases__[0].__name__ for name, kind in classes if issubclass(kind, Exception)
    }
    assert expected == drawn()


def test_a_call_error_carries_what_the_agent_said() -> None:
    """Status, excerpt and pause travel with the message."""
    error = call_errors.AgentFailed("no", status=503, excerpt="busy", retry_after=2.0)
    assert ("no", 503, "busy", 2.0) == (
        str(error),
        error.status,
        error.excerpt,
        error.retry_after,
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            errors.PayloadTooLarge(2_000_001, 1_900_000),
            "2,000,001 bytes are too many; at most 1,900,000 are accepted",
        ),
        (errors.TaskNotFound("t"), "Task 't' is not known"),
        (errors.UnknownPattern("xyz", [], []), "Unknown pattern 'xyz'"),
        (
            errors.UnknownPattern("x", ["a", "b"], []),
            "Unknown pattern 'x'; did you mean 'a' or 'b'?",
        ),
    ],
)
def test_messages_are_for_people(error: errors.OrchestratorError, text: str) -> None:
    """They say what happened, in the documented words."""
    assert text == str(error)


def test_a_configuration_error_has_a_line_for_each_problem() -> None:
    """Place and problem, one a line."""
    problems = [errors.ConfigurationProblem("c:1", "x"), errors.ConfigurationProblem("c:2", "y")]
    assert "c:1: x\nc:2: y" == str(errors.ConfigurationError(problems))
