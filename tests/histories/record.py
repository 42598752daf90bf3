"""Record a history of each scenario: `make histories`, or python -m tests.histories.record.

Starts the real engine on free ports, real workers, and a real HTTP agent; the replay tests read
what this writes. Record anew only when a workflow's history is meant to change.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle

from orchestrator.config import Logging
from orchestrator.routing import WORKFLOW_TYPE
from orchestrator.telemetry import logging
from tests.histories.scenarios import SCENARIOS, Scenario, identity, stage
from tests.support.engine import client_of, development_server

FOLDER = Path(__file__).parent


def path_of(scenario: str) -> Path:
    """Where a scenario's history is kept; those of other workflows name their type."""
    return FOLDER / f"{scenario if '.' in scenario else f'{WORKFLOW_TYPE}.{scenario}'}.json"


async def record(client: Client, name: str, scenario: Scenario) -> dict[str, Any]:
    """Play one scenario and return its history, without what only this machine has."""
    async with stage(client, scenario, name) as (handle, agent):
        await scenario.play(handle, agent)
        await end_of(handle)
        history = await handle.fetch_history()
    return {"workflowId": history.workflow_id, **scrubbed(history.to_json_dict())}


async def end_of(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until the workflow has closed, however."""
    async for _ in handle.fetch_history_events(wait_new_event=True):
        pass


def scrubbed(value: Any) -> Any:
    """The history without stack traces, which show the paths of one machine."""
    if isinstance(value, dict):
        return {k: scrubbed(v) for k, v in value.items() if k != "stackTrace"}
    if isinstance(value, list):
        return [scrubbed(each) for each in value]
    return value


async def record_all(names: list[str]) -> None:
    """Record the named scenarios and say what was written."""
    with (
        tempfile.TemporaryDirectory() as directory,
        development_server(Path(directory)) as temporal,
    ):
        client = await client_of(temporal, identity("client"))
        for name in names:
            history = await record(client, name, SCENARIOS[name])
            path = path_of(name)
            path.write_text(json.dumps(history, indent=1, ensure_ascii=False) + "\n")
            print(f"{path.name}: {len(history['events'])} events")  # noqa: T201 - its answer


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.histories.record",
        description="Record the workflow histories that the replay tests use.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted(SCENARIOS),
        metavar="SCENARIO",
        help=f"record this one, repeatable; one of: {', '.join(sorted(SCENARIOS))}",
    )
    arguments = parser.parse_args()
    logging.configure(Logging(level="error"), "recorder")
    asyncio.run(record_all(arguments.only or list(SCENARIOS)))
    sys.stdout.flush()
    # A process that used the engine's client may abort in its interpreter's exit.
    os._exit(0)


if __name__ == "__main__":
    main()
