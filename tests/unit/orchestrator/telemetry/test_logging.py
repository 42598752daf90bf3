"""Log lines, as a process of its own writes them."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import logging, sys, warnings
import structlog
from orchestrator.config import Logging
from orchestrator.telemetry.logging import configure, get_logger

configure(Logging(level=sys.argv[1], format=sys.argv[2]), "worker")
log = get_logger("ours")
log.info("task_completed", task_id="t", agent="reader", execution_time=45.2)
log.debug("detail")
logging.getLogger("theirs").warning("took %d s of %s", 3, "time")
logging.getLogger("theirs").info("text")
logging.getLogger("uvicorn.access").info("GET / 200")
logging.getLogger("temporalio.activity").warning("noise")
warnings.warn("old", stacklevel=1)
def work(payload):
    raise ValueError("broken")
try:
    work("s" + str(314000 + 159))
except ValueError:
    log.exception("failed")
    logging.getLogger("theirs").exception("also failed")
with structlog.contextvars.bound_contextvars(task_id="bound"):
    log.info("with_context")
log.info("odd", text="a\\nb\\x1b[31m Ü", thing=object(), level="x")
"""


def lines(level: str = "info", form: str = "json", program: str = PROGRAM) -> list[str]:
    """What the program writes to stdout; nothing goes to stderr."""
    result = subprocess.run(
        [sys.executable, "-c", program, level, form], capture_output=True, text=True, check=False
    )
    assert (0, "") == (result.returncode, result.stderr)
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def written() -> list[dict[str, Any]]:
    """The lines as JSON."""
    return [json.loads(line) for line in lines()]


def by_event(written: list[dict[str, Any]], event: str) -> dict[str, Any]:
    """The one line of an event."""
    [line] = [each for each in written if each["event"] == event]
    return line


def test_each_line_is_json_that_begins_alike(written: list[dict[str, Any]]) -> None:
    """Event, level and timestamp first, then the process."""
    expected = ["event", "level", "timestamp", "process"]
    assert all(expected == list(line)[:4] for line in written)


def test_the_documented_line(written: list[dict[str, Any]]) -> None:
    """The fields of the documentation, and a timestamp in ISO form, in UTC."""
    line = by_event(written, "task_completed")
    moment = datetime.fromisoformat(line.pop("timestamp"))
    expected = {
        "event": "task_completed",
        "level": "info",
        "process": "worker",
        "task_id": "t",
        "agent": "reader",
        "execution_time": 45.2,
    }
    assert expected == line
    assert moment.tzinfo is not None


def test_lines_of_libraries_join_in(written: list[dict[str, Any]]) -> None:
    """In the same form, with their arguments put in."""
    line = by_event(written, "took 3 s of time")
    assert ("warning", "worker") == (line["level"], line["process"])


def test_lines_below_the_level_are_left_out(written: list[dict[str, Any]]) -> None:
    """And so is what libraries say of each request or failed attempt."""
    events = {line["event"] for line in written}
    assert "text" in events
    assert not events & {"detail", "GET / 200", "noise"}


def test_exceptions_are_a_field(written: list[dict[str, Any]]) -> None:
    """With their traceback, in one line; ours and those of libraries."""
    for event in ("failed", "also failed"):
        line = by_event(written, event)
        assert "error" == line["level"]
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith("ValueError: broken")


@pytest.mark.parametrize("form", ["json", "console"])
def test_exceptions_show_no_payloads(form: str) -> None:
    """A traceback names lines of code, and not the values that were there."""
    assert "s314159" not in "\n".join(lines(form=form))


def test_warnings_are_lines_too(written: list[dict[str, Any]]) -> None:
    """Python's own warnings do not go to stderr."""
    [line] = [each for each in written if "UserWarning: old" in each["event"]]
    assert "warning" == line["level"]


def test_bound_context_is_part_of_the_line(written: list[dict[str, Any]]) -> None:
    """What was bound before needs not be said again."""
    assert "bound" == by_event(written, "with_context")["task_id"]


def test_odd_values_do_not_break_the_line(written: list[dict[str, Any]]) -> None:
    """Line breaks and control characters are escaped, objects are said in words."""
    line = by_event(written, "odd")
    assert ("a\nb\x1b[31m Ü", "info") == (line["text"], line["level"])


@pytest.mark.parametrize(("level", "expected"), [("debug", True), ("error", False)])
def test_the_level_is_the_configured_one(level: str, expected: bool) -> None:  # noqa: FBT001
    """From everything to errors alone."""
    text = "\n".join(lines(level))
    assert (expected, expected) == ("detail" in text, "task_completed" in text)
    assert "also failed" in text


def test_no_value_can_break_a_call_of_the_log() -> None:
    """Half a character, as odd bytes in a path or a header leave, is no reason to fail."""
    program = PROGRAM.partition("log.info")[0] + 'log.info("odd", path="a\\udcff")\n'
    assert "odd" == json.loads(lines(program=program)[0])["event"]


def test_a_full_disk_is_no_reason_to_fail() -> None:
    """A line that cannot be written is lost, and the task that it tells of is not."""
    program = PROGRAM.partition("log.info")[0] + (
        'log.info("lost")\nlogging.getLogger("theirs").warning("lost")\n'
        'print("on", file=sys.stderr)\n'
    )
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-c", program, "info", "json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.stderr.startswith("on\n") or "\non\n" in result.stderr


def test_numbers_that_json_lacks_are_written_as_json() -> None:
    """Other programs must be able to read the line."""
    program = PROGRAM.partition("log.info")[0] + 'log.info("odd", number=float("inf"))\n'
    assert "Infinity" not in lines(program=program)[0].replace('"Infinity"', "")


def test_automatic_is_json_away_from_a_terminal() -> None:
    """What goes to a file or another program is for programs."""
    assert "task_completed" == json.loads(lines(form="auto")[0])["event"]


def test_the_console_form_is_for_people() -> None:
    """Readable lines, without colours away from a terminal."""
    text = "\n".join(lines(form="console"))
    assert "task_completed" in text
    assert "execution_time=45.2" in text
    assert "ValueError: broken" in text


def test_the_console_form_cannot_be_steered() -> None:
    """Values from outside, such as a task's pattern, neither colour a line nor begin one."""
    text = "\n".join(lines(form="console"))
    assert "\x1b" not in text
    assert not any(line.startswith("b") for line in text.splitlines())
