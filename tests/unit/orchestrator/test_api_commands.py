"""The commands that speak to the API, against a server that answers as it is told."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import orchestrator
from orchestrator.exits import EXPLAINED, Exit
from tests.support.api import AT, Answer, Heard, ScriptedApi, batch, problem, scripted, task
from tests.support.stack import free_port

COMMANDS = (
    *("submit", "status", "tasks", "batch", "aggregate", "doctor"),
    *("drain", "resume", "trip", "reset", "redrive"),
)
COUNTS = {"total_tasks": 1, "completed": 0, "failed": 0, "cancelled": 0, "pending": 1}


def run(url: str | None, *arguments: str, stdin: str | bytes = "", **variables: str) -> Result:
    """Run a command, with no variables of this machine's."""
    own = {name: None for name in os.environ if name.startswith("ORCHESTRATOR_")}
    named = {} if url is None else {"ORCHESTRATOR_URL": url}
    env = {**own, **named, **variables}
    return CliRunner().invoke(orchestrator, arguments, input=stdin, env=env)


def joined(state: str, **fields: Any) -> dict[str, Any]:
    """An aggregate."""
    stamps = {"created_at": AT, "updated_at": AT}
    return {"aggregate_id": "a-1", "status": state, **COUNTS, **stamps, **fields}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command: str) -> None:
    """And names the option for programs."""
    result = run(None, command, "--help")
    assert 0 == result.exit_code
    assert "Examples:\n" in result.output
    assert all(line.strip() in result.output for line in EXPLAINED.splitlines()[2:])
    assert "--json" in result.output


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(422, "wrong"), Exit.USAGE),
        (problem(404, "none"), Exit.NOT_FOUND),
        (problem(409, "not now"), Exit.REFUSED),
        (problem(429, "too many", "30"), Exit.REFUSED),
        (problem(503, "open", "30"), Exit.REFUSED),
        (problem(401, "no key"), Exit.NOT_ALLOWED),
        (problem(403, "no right"), Exit.NOT_ALLOWED),
        (problem(500, "broken"), Exit.UNREACHABLE),
        (Answer(200, b"<html>", {"Content-Type": "text/html"}), Exit.UNREACHABLE),
    ],
)
def test_a_refusal_is_one_line_and_a_code(answer: Answer, code: Exit) -> None:
    """Which tells scripts what kind it is."""
    with scripted(answer) as api:
        result = run(api.url, "status", "t-1", "--retry-for", "0")
    assert (code, "", 1) == (result.exit_code, result.stdout, len(result.stderr.splitlines()))
    assert result.stderr.startswith("orchestrator: ")


def test_an_api_that_is_not_there_has_a_code_of_its_own() -> None:
    """And its address is named."""
    port = free_port()
    result = run(None, "tasks", "--retry-for", "0", ORCHESTRATOR_PORT=str(port))
    assert (Exit.UNREACHABLE, "") == (result.exit_code, result.stdout)
    assert f"http://127.0.0.1:{port}/ does not answer" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit"], "Name a PATTERN"),
        (["submit", "work", "--payload", "[1]"], "must hold an object"),
        (["submit", "work", "--payload", '{"a": NaN}'], "NaN is no number of JSON"),
        (["submit", "work", "--payload", "{"], "is not JSON"),
        (["submit", "work", "--payload", "none.json"], "no file: No such file"),
        (["submit", "work", "--payload", '{"a": "\\ud800"}'], "surrogates not allowed"),
        (["submit", "work", "--priority", "6"], "Invalid value for '--priority'"),
        (["submit", "work", "--timeout", "inf"], "not a number of seconds"),
        (["submit", "work", "--wait", "soon"], "not a number of seconds"),
        (["tasks", "--since", "soon"], "is not a time such as"),
        (["tasks", "--url", "nonsense"], "is not the URL of an API"),
        (["tasks", "--url", "http://x:abc"], "is not the URL of an API"),
        (["tasks", "--url", "http://x:99999"], "is not the URL of an API"),
        (["tasks", "--url", "http://[::1"], "is not the URL of an API"),
        (["doctor", "--url", "http://x:abc"], "is not the URL of an API"),
        (["aggregate"], "Name one of"),
        (["aggregate", "t-1", "--join", "most"], "none of: all, any, 3, 20%"),
        (["batch"], "Name one of"),
        (["batch", "none.ndjson"], "cannot be read: No such file"),
        (["batch", "-"], "holds no task"),
        (["batch", "-", "--results", "/none/there"], "cannot be written"),
        (["status", ""], "names nothing"),
        (["drain", ".."], "names nothing"),
        (["redrive"], "Missing argument"),
        (["completion", "tcsh"], "is not one of"),
    ],
)
def test_a_wrong_command_is_told_what_is_wrong(arguments: list[str], words: str) -> None:
    """Before anything is sent."""
    with scripted(Answer(202, task())) as api:
        result = run(api.url, *arguments)
    assert (Exit.USAGE, []) == (result.exit_code, api.heard)
    assert words in result.stderr


@pytest.mark.parametrize("source", ["file", "text", "-"])
def test_a_payload_comes_from_a_file_a_text_or_standard_input(source: str, tmp_path: Path) -> None:
    """With whatever else was given, and nothing that was not."""
    text = '{"file": "é.pdf"}'
    (tmp_path / "payload.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    payload = {"file": str(tmp_path / "payload.json"), "text": text}.get(source, "-")
    with scripted(Answer(202, task("queued"))) as api:
        result = run(
            api.url,
            *("submit", "work", "--payload", payload, "--priority", "5", "--metadata", '{"n": 1}'),
            *("--timeout", "9", "--idempotency-key", "k-1", "--json"),
            stdin=text.encode(),
        )
    assert (Exit.OK, "queued") == (result.exit_code, json.loads(result.stdout)["status"])
    sent = {"pattern": "work", "payload": {"file": "é.pdf"}, "priority": 5}
    assert {**sent, "metadata": {"n": 1}, "timeout": 9} == api.heard[0].json
    assert "k-1" == api.heard[0].headers["idempotency-key"]


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("failed", 1), ("cancelled", 1)])
def test_a_wait_ends_as_the_task_ends(state: str, code: int) -> None:
    """The code is the task's."""
    with scripted(
        Answer(202, task("queued")), Answer(200, task(state, error="disk\x1b[2J"))
    ) as api:
        result = run(api.url, "submit", "work", "--wait")
    assert code == result.exit_code
    assert state in result.stdout
    assert "\x1b" not in result.stdout


def test_a_wait_that_is_over_says_how_to_go_on() -> None:
    """The task is not lost."""
    with scripted(Answer(202, task("queued")), Answer(200, task("running"))) as api:
        result = run(api.url, "submit", "work", "--wait", "0.1")
    assert Exit.STILL_OPEN == result.exit_code
    assert "orchestrator status t-1" in result.stderr


def test_a_watch_tells_each_change_once() -> None:
    """And the end."""
    states = ("queued", "running", "running", "completed")
    with scripted(*(Answer(200, task(each)) for each in states)) as api:
        result = run(api.url, "status", "t-1", "--watch", "--json")
    told = [json.loads(line)["status"] for line in result.stdout.splitlines()]
    assert (Exit.OK, ["queued", "running", "completed"]) == (result.exit_code, told)


def test_tasks_are_found_by_filters() -> None:
    """And the next page is named beside the table."""
    page = {"tasks": [task(agent="reader", pattern="work")], "next_cursor": "c-2"}
    with scripted(Answer(200, page)) as api:
        result = run(api.url, "tasks", "--status", "completed", "--since", "2026-01-15T10:30Z")
    assert Exit.OK == result.exit_code
    assert ["task", "t-1"] == [line.split()[0] for line in result.stdout.splitlines()]
    assert "--cursor c-2" in result.stderr
    assert "status=completed" in api.heard[0].path


def test_all_tasks_are_read_page_by_page() -> None:
    """One a line for programs."""
    first = Answer(200, {"tasks": [task()], "next_cursor": "c-2"})
    with scripted(first, Answer(200, {"tasks": [task(task_id="t-2")]})) as api:
        result = run(api.url, "tasks", "--all", "--json")
    assert ["t-1", "t-2"] == [json.loads(line)["task_id"] for line in result.stdout.splitlines()]


def test_wrong_lines_are_named_by_their_number() -> None:
    """Blank lines count, whoever finds what is wrong; nothing is sent that is no task."""
    good = '{"pattern": "work", "payload": {}}'
    with scripted(Answer()) as api:
        result = run(api.url, "batch", "-", stdin=f"{good}\n\n{{}}\n[1]\n")
    assert (Exit.USAGE, []) == (result.exit_code, api.heard)
    assert "standard input, line 3: payload: Field required" in result.stderr
    assert "standard input, line 4: " in result.stderr
    bad = [{"index": 1, "field": "pattern", "message": "Unknown"}]
    with scripted(problem(422, "wrong", errors=bad, bad_items=1)) as api:
        result = run(api.url, "batch", "-", stdin=f"{good}\n\n{good}\n")
    assert Exit.USAGE == result.exit_code
    assert "standard input, line 3: pattern: Unknown" in result.stderr


def _batch_api(api: ScriptedApi, **counts: Any) -> None:
    lines = b"".join(json.dumps(task(task_id=f"t-{n}")).encode() + b"\n" for n in range(2))

    def decide(heard: Heard) -> Answer:
        if heard.method == "POST":
            return Answer(202, batch("running", pending=2))
        if heard.path.endswith("/results"):
            return Answer(200, lines, {"Content-Type": "application/x-ndjson"})
        return Answer(200, batch(**counts))

    api.decide = decide


def test_a_batch_is_seen_through_and_its_results_are_kept(tmp_path: Path) -> None:
    """One line each, in order."""
    kept = tmp_path / "results.ndjson"
    with scripted() as api:
        _batch_api(api, completed=2)
        line = '{"pattern": "work", "payload": {}}\n'
        result = run(api.url, "batch", "-", "--results", str(kept), "--json", stdin=line * 2)
    assert (Exit.OK, 2) == (result.exit_code, json.loads(result.stdout)["completed"])
    assert ["t-0", "t-1"] == [json.loads(each)["task_id"] for each in kept.read_text().splitlines()]


def test_a_batch_with_failed_tasks_fails() -> None:
    """Also one that is only followed."""
    with scripted() as api:
        _batch_api(api, completed=1, failed=1)
        result = run(api.url, "batch", "--id", "b-1", "--results", "-")
    assert (Exit.FAILED, 2) == (result.exit_code, len(result.stdout.splitlines()))


@pytest.mark.parametrize(
    ("given", "join"),
    [("any", "any"), ("2", {"at_least": 2}), ("20%", {"max_failed_percent": 20.0})],
)
def test_tasks_are_joined_by_a_rule(given: str, join: Any) -> None:
    """Ids come from standard input too; a failed join is a failed command."""
    with scripted(Answer(202, joined("running")), Answer(200, joined("failed"))) as api:
        result = run(api.url, "aggregate", "-", "--join", given, "--wait", stdin="t-1\n\nt-2\n")
    assert Exit.FAILED == result.exit_code
    assert {"task_ids": ["t-1", "t-2"], "join": join} == api.heard[0].json


def test_one_refused_redrive_does_not_keep_back_the_others() -> None:
    """And its code is that of the command."""
    with scripted(problem(404, "no such letter"), Answer(202, task("queued"))) as api:
        result = run(api.url, "redrive", "t-0", "t-1", "--json")
    assert (Exit.NOT_FOUND, ["t-1"]) == (
        result.exit_code,
        [each["task_id"] for each in json.loads(result.stdout)],
    )
    assert "no such letter" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_by_it(shell: str) -> None:
    """By the variable that the command answers to."""
    result = run(None, "completion", shell)
    assert Exit.OK == result.exit_code
    assert f"_ORCHESTRATOR_COMPLETE={shell}_complete" in result.stdout


def test_the_doctor_says_what_to_do_where_nothing_is(tmp_path: Path) -> None:
    """Each failure with an advice, and a code for scripts."""
    free, config = str(free_port()), tmp_path / "config.yaml"
    config.write_text("{}")
    result = run(
        *(None, "doctor", "--json", "--config", str(config)),
        ORCHESTRATOR_PORT=free,
        ORCHESTRATOR_TEMPORAL__ADDRESS=f"127.0.0.1:{free_port()}",
        ORCHESTRATOR_TEMPORAL__CONNECT_TIMEOUT="0.3",
        ORCHESTRATOR_MONITORING__ENABLE_METRICS="false",
    )
    found = json.loads(result.stdout)
    states = {each["name"]: each["state"] for each in found["checks"]}
    assert (Exit.FAILED, False) == (result.exit_code, found["ok"])
    assert {"engine": "fail", "API": "fail", f"port {free} (API)": "ok"}.items() <= states.items()
    assert all(each["advice"] for each in found["checks"] if each["state"] != "ok")


def test_the_doctor_names_what_is_wrong_with_a_configuration(tmp_path: Path) -> None:
    """And goes on with what needs none."""
    config = tmp_path / "config.yaml"
    config.write_text("agnet: {}")
    with scripted(problem(503, "no engine")) as api:
        result = run(api.url, "doctor", "--config", str(config))
    assert Exit.FAILED == result.exit_code
    assert "agnet" in result.stdout
