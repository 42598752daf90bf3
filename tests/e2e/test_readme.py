"""Every command of the README is run, on the shipped configuration with the sample agents."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from examples.agents import CATALOG
from tests.support.stack import BIN, ROOT, Stack, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

README = (ROOT / "README.md").read_text()
COMMANDS = [
    command.strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for command in re.sub(r"\\\n\s*", "", block).splitlines()
    if command.strip()
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shipped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The product as it is shipped, on free ports."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    async with running(tmp_path_factory.mktemp("shipped"), config, options=()) as stack:
        yield stack


async def shell(command: str, stack: Stack) -> tuple[int, str]:
    """Run a command of the README against the product on its own ports."""
    command = command.replace("localhost:8000", stack.url.removeprefix("http://"))
    process = await asyncio.create_subprocess_shell(
        command.replace(".venv/bin/", f"{BIN}/"),
        cwd=ROOT,
        env={**stack.variables(), "TEMPORAL_ADDRESS": stack.engine},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode() + (
        errors.decode() if process.returncode else ""
    )


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_of_the_readme_works(shipped: Stack, command: str) -> None:
    """Those of make exist, all others succeed, and no curl is answered with a problem."""
    if command.startswith("make "):
        command = re.sub(r"^make (\w+).*", r"make --dry-run \1", command)
    code, output = await shell(command, shipped)

    assert 0 == code, output
    assert '"status_code"' not in output


async def test_the_first_example_returns_the_text_of_the_shipped_pdf(shipped: Stack) -> None:
    """The README's first curl: real pages, real text."""
    first = next(command for command in COMMANDS if "upload_pdf" in command)

    _, output = await shell(first, shipped)
    status = json.loads(output)

    assert ("completed", 3) == (status["status"], status["result"]["pages"])
    assert status["result"]["extracted_text"].startswith("How Plants Make Food")
    assert "photosynthesis" in status["result"]["extracted_text"]


async def test_the_faulty_example_gets_through_at_the_third_attempt(shipped: Stack) -> None:
    """The README's second curl."""
    second = next(command for command in COMMANDS if "_fault" in command)

    _, output = await shell(second, shipped)
    status = json.loads(output)

    assert ("completed", 3) == (status["status"], status["attempts"]), output


@pytest.mark.parametrize("pattern", sorted(CATALOG))
async def test_every_documented_pattern_completes(shipped: Stack, pattern: str) -> None:
    """Each of the 18 patterns, with its agent's example payload."""
    entry = CATALOG[pattern]
    async with shipped.client() as api:
        response = await api.post(
            "/orchestrate",
            json={"pattern": pattern, "payload": dict(entry.example)},
            headers={"Prefer": "wait=30"},
        )

    status = response.json()
    assert ("completed", entry.agent) == (status["status"], status["agent"]), json.dumps(status)


async def test_the_documented_python_client_works(shipped: Stack) -> None:
    """Submit, then poll once in a while until completed or failed."""

    async def submit_and_poll() -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            response = await client.post(
                f"{shipped.url}/orchestrate",
                json={
                    "pattern": "personalize_content",
                    "payload": {"user_id": "12345", "content_id": "lesson-101"},
                    "priority": 3,
                },
            )
            task_id = response.json()["task_id"]
            while True:
                status = (await client.get(f"{shipped.url}/status/{task_id}")).json()
                if status["status"] in ["completed", "failed"]:
                    return dict(status)
                await asyncio.sleep(0.1)

    async with asyncio.timeout(30):
        status = await submit_and_poll()

    assert ("completed", "personalization_agent") == (status["status"], status["agent"])


async def test_nothing_was_said_on_stderr(shipped: Stack) -> None:
    """What stderr holds, a user must be able to act on: here there is nothing."""
    assert "" == shipped.complained()


async def test_every_document_that_the_readme_links_is_there() -> None:
    """No dead links."""
    links = re.findall(r"\]\((?!http)([^)#]+)", README)

    assert [] == [link for link in links if not (ROOT / link).exists()]
    assert len(links) >= 5
