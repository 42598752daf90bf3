"""The command line against the running product: every command that speaks to the API."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.agents import Agent, Reply
from tests.support.stack import BIN, Stack

pytestmark = [pytest.mark.measured, pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

DEADLINE_SECONDS = 60
LINE = '{"pattern": "work", "payload": {}}\n'


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """Its output."""
        return json.loads(self.output)


async def start(stack: Stack, *command: str) -> asyncio.subprocess.Process:
    """Start a program with the product's variables."""
    return await asyncio.create_subprocess_exec(
        *command,
        env={**stack.variables(), "PATH": f"{BIN}:/usr/bin:/bin"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(stack: Stack, *arguments: str, stdin: str = "") -> Said:
    """Run ``orchestrator`` with these arguments."""
    return await _end(await start(stack, "orchestrator", *arguments), stdin)


async def _end(process: asyncio.subprocess.Process, stdin: str = "") -> Said:
    output, errors = await process.communicate(stdin.encode())
    assert b"Traceback" not in errors, errors.decode()
    return Said(process.returncode or 0, output.decode(), errors.decode())


async def test_a_task_is_submitted_waited_for_and_found(stack: Stack, agent: Agent) -> None:
    """By submit, status and tasks, at the port that the variables name."""
    agent.script(Reply(body={"pages": 3}))
    rehearsed = await run(stack, "submit", "work", "--dry-run", "--json")
    done = await run(stack, "submit", "work", "--payload", "-", "--wait", "30", stdin='{"n": 1}')
    found = (await run(stack, "tasks", "--status", "completed", "--json")).json["tasks"]
    watched = await run(stack, "status", found[0]["task_id"], "--watch", "--json")
    assert (0, True) == (rehearsed.code, rehearsed.json["admission"]["admitted"])
    assert (0, True) == (done.code, '{"pages": 3}' in done.output)
    assert found[0]["task_id"] in done.output
    assert (0, {"pages": 3}) == (watched.code, json.loads(watched.output)["result"])


async def test_what_is_wrong_has_codes(stack: Stack) -> None:
    """One line, no traceback."""
    wrong = await run(stack, "submit", "wrok")
    missing = await run(stack, "status", "none")
    away = await run(stack, "tasks", "--url", "http://127.0.0.1:1", "--retry-for", "0")
    empty = await run(stack, "dead-letters", "discard", "--agent", "a", "--batch", "")
    assert (2, 3, 5, 2) == (wrong.code, missing.code, away.code, empty.code)
    assert "did you mean 'work'?" in wrong.errors
    assert "batch" in empty.errors
    assert {1} == {len(each.errors.splitlines()) for each in (wrong, missing, away, empty)}


async def test_a_failed_task_is_redriven(stack: Stack, agent: Agent) -> None:
    """The code tells that it failed, and that it then did not."""
    agent.script(Reply(status=500, body={"detail": "disk full"}))
    failed = await run(stack, "submit", "work", "--wait", "30", "--json")
    agent.script(Reply())
    task_id = failed.json["task_id"]
    redriven = await run(stack, "redrive", task_id, "--reason", "mended")
    done = await run(stack, "status", task_id, "--wait", "30")
    again = await run(stack, "redrive", task_id)
    assert (1, 0, 0, 3) == (failed.code, redriven.code, done.code, again.code)


async def test_a_batch_and_the_join_of_its_tasks(stack: Stack, tmp_path: Path) -> None:
    """A wrong line is named by its number; the results' ids are joined."""
    good, bad, kept = (tmp_path / name for name in ("good", "bad", "kept"))
    good.write_text(LINE * 3)
    bad.write_text(f"{LINE}\n{LINE.replace('work', 'wrok')}")
    refused = await run(stack, "batch", str(bad))
    done = await run(stack, "batch", str(good), "--results", str(kept), "--json")
    ids = [json.loads(line)["task_id"] for line in kept.read_text().splitlines()]
    joined = await run(stack, "aggregate", "-", "--wait", "30", "--json", stdin="\n".join(ids))
    assert (2, True) == (refused.code, f"{bad}, line 3: pattern" in refused.errors)
    assert (0, 3, 3) == (done.code, done.json["completed"], len(ids))
    assert (0, 3) == (joined.code, joined.json["completed"])


async def test_operators_steer_and_the_doctor_sees_it(stack: Stack) -> None:
    """A drained agent is a failure with an advice; all is well after it was resumed."""
    codes = [(await run(stack, order, "test_agent")).code for order in ("trip", "reset")]
    drained = await run(stack, "drain", "test_agent", "--reason", "upgrade", "--json")
    ill = await run(stack, "doctor")
    resumed = await run(stack, "resume", "test_agent", "--json")
    well = await run(stack, "doctor", "--json")
    assert [0, 0] == codes
    assert (True, False) == tuple(
        each.json["instances"][0]["draining"] for each in (drained, resumed)
    )
    assert (1, True) == (ill.code, "orchestrator resume test_agent" in ill.output)
    assert (0, {"ok"}) == (well.code, {each["state"] for each in well.json["checks"]})


async def test_an_interrupted_wait_leaves_the_task(stack: Stack, agent: Agent) -> None:
    """And says how to look at it."""
    agent.script(Reply(hang=True))
    # A run of the tests in the background may have its signals ignored, and hand that on.
    interruptible = ("env", "--default-signal=INT")
    process = await start(stack, *interruptible, "orchestrator", "submit", "work", "--wait")
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        told = (await process.stderr.readline()).decode()
    process.send_signal(signal.SIGINT)
    said = await _end(process)
    agent.script(Reply())
    task_id = told.split()[1]
    async with stack.client() as client:
        cancelled = await client.post(f"/tasks/{task_id}/cancel")
    assert (130, "") == (said.code, said.output)
    assert said.errors.endswith(f"orchestrator status {task_id}\n")
    assert 202 == cancelled.status_code


async def test_a_reader_that_leaves_and_a_full_disk_are_no_traceback(stack: Stack) -> None:
    """As in ``tasks | head``."""
    head = "set -o pipefail; orchestrator tasks --all | head -c 1 > /dev/null"
    left = await _end(await start(stack, "bash", "-c", head))
    full = await _end(await start(stack, "bash", "-c", "orchestrator tasks > /dev/full"))
    assert left.code in {0, 141}
    assert "" == left.errors
    assert (1, "orchestrator: [Errno 28] No space left on device\n") == (full.code, full.errors)


async def test_a_shell_completes(stack: Stack) -> None:
    """By the script that the command writes."""
    program = (
        'eval "$(orchestrator completion bash)"; COMP_WORDS=(orchestrator sub); COMP_CWORD=1; '
        '_orchestrator_completion orchestrator; echo "${COMPREPLY[@]}"'
    )
    said = await _end(await start(stack, "bash", "-c", program))
    assert (0, "submit\n") == (said.code, said.output)
