"""What docs/operations/backup.md says: a copy of the running engine can be started elsewhere."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.support.agents import Agent, Reply
from tests.support.stack import ROOT, agent_config, eventually, running

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.own_topology("it copies the embedded engine's file"),
]

PAGE = ROOT / "docs" / "operations" / "backup.md"


def commands() -> str:
    """The shell commands of the page that copy a data directory in use."""
    found = re.search(r"```bash\n(DATA=.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1].replace("DATA=.data BACKUP=backup", "")


async def test_a_copy_of_the_running_engine_is_restored_elsewhere(tmp_path: Path) -> None:
    """What had ended is as it was, what was open goes on; one starts from the other's copy."""
    backup = tmp_path / "second" / "data"
    backup.parent.mkdir()
    async with Agent(decide=lambda call: Reply(hang=call.body == {"hang": True})) as agent:
        config = agent_config(agent.url)
        async with running(tmp_path / "first", config) as first, first.client() as api:
            done = await api.post(
                "/orchestrate",
                json={"pattern": "work", "payload": {}},
                headers={"Prefer": "wait=60"},
            )
            waiting = await api.post(
                "/orchestrate", json={"pattern": "work", "payload": {"hang": True}}
            )
            open_id = waiting.json()["task_id"]

            async def called() -> bool:
                return bool(agent.calls_of(open_id))

            await eventually(called)
            await _run(commands(), DATA=str(first.data_dir), BACKUP=str(backup))
        agent.release()
        async with running(tmp_path / "second", config) as second, second.client() as api:
            task_id = done.json()["task_id"]
            restored = (await api.get(f"/status/{task_id}")).json()
            answer = await api.get(f"/status/{open_id}", headers={"Prefer": "wait=60"})

    assert ("completed", done.json()["result"]) == (restored["status"], restored["result"])
    assert "completed" == answer.json()["status"]


async def _run(script: str, **variables: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh", "-euc", script, env={"PATH": f"{ROOT}/.venv/bin:/usr/bin:/bin", **variables}
    )
    assert 0 == await process.wait()
