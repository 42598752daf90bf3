"""Recorded histories still replay: tasks that are under way survive a new version of the code."""

import json
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from orchestrator.engine.converter import data_converter
from tests.histories.record import FOLDER, path_of
from tests.histories.scenarios import SCENARIOS
from tests.replay.changed_workflow import SleepsFirst
from workflows.hosting import WORKFLOWS

HISTORIES = sorted(FOLDER.glob("*.json"))
EARLIER = sorted(FOLDER.glob("*/*.json"))
"""Of released versions, and of courses that are gone: nobody changes or records them again."""
ALL = (*HISTORIES, *EARLIER)
RUNNERS = {"sandboxed": SandboxedWorkflowRunner, "unsandboxed": UnsandboxedWorkflowRunner}


def history_of(path: Path) -> WorkflowHistory:
    """The history in a file."""
    text = path.read_text()
    return WorkflowHistory.from_json(json.loads(text)["workflowId"], text)


def name_of(path: Path) -> str:
    """How a test of a history is called."""
    return str(path.relative_to(FOLDER).with_suffix(""))


async def replay(path: Path, runner: WorkflowRunner, *workflows: type) -> None:
    """Replay one history; raises when the workflow now does something else."""
    replayer = Replayer(workflows=workflows, workflow_runner=runner, data_converter=data_converter)
    await replayer.replay_workflow(history_of(path))


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("path", ALL, ids=name_of)
async def test_a_recorded_history_replays(path: Path, runner: str) -> None:
    """With the workflows as they are now, in the sandbox and outside it."""
    await replay(path, RUNNERS[runner](), *WORKFLOWS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_has_its_history(scenario: str) -> None:
    """`make histories` was run after the scenario was added."""
    assert path_of(scenario).is_file()


def test_every_history_has_its_scenario() -> None:
    """What the code of today does can be recorded again; what is earlier is kept apart."""
    assert {path_of(name) for name in SCENARIOS} == set(HISTORIES)


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_history_shows_nothing_of_the_machine_it_was_recorded_on(path: Path) -> None:
    """Neither where the code lay nor who ran it."""
    text = path.read_text()
    assert [] == [word for word in ("/site-packages/", "/home/", "stackTrace") if word in text]
    assert "@recorder" in text


def test_only_courses_that_changed_ask_for_patches() -> None:
    """Each costs a run two events, which no plain task is to pay."""
    patched = {path.stem for path in HISTORIES if '"core_patch"' in path.read_text()}
    changed = {path.stem for path in HISTORIES if "_with_callback" in path.stem}
    assert patched == changed | {
        "OrchestrateTask.failed_deadline_without_worker",
        "TaskBatch.completed_coalesced_after_retries",
    }


@pytest.mark.parametrize("runner", RUNNERS)
async def test_a_changed_workflow_does_not_replay(runner: str) -> None:
    """So this gate can fail."""
    with pytest.raises(workflow.NondeterminismError):
        await replay(path_of("completed_queued"), RUNNERS[runner](), SleepsFirst)
