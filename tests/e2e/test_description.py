"""The API's own description, tried against the running product by schemathesis with all checks."""

import asyncio
from pathlib import Path

import pytest

from tests.support.agents import Agent
from tests.support.keys import make
from tests.support.stack import BIN, ROOT, agent_config, running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EXAMPLES = 4
SEED = 20260115


async def test_every_answer_is_as_described_and_none_is_500(tmp_path: Path) -> None:
    """Right and wrong requests to every operation, the same ones each time."""
    file = tmp_path / "keys.yaml"
    key = make(file, "--name", "root", "--tenant", "*", "--scope", "admin")["key"]
    async with Agent() as agent:
        config = agent_config(agent.url, timeout=5) | {"security": {"keys_file": str(file)}}
        async with running(tmp_path / "stack", config) as stack:
            process = await asyncio.create_subprocess_exec(
                *(str(BIN / "schemathesis"), "--config-file", str(ROOT / "schemathesis.toml")),
                *("run", f"{stack.url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
                *("--checks", "all", "--phases", "examples,fuzzing"),
                *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--no-color"),
                cwd=tmp_path,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            log = stack.said()
    assert process.returncode == 0, output.decode()[-10_000:]
    assert "request_failed" not in log
