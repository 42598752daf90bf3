"""What a clean-up removes from a storage, and what it leaves."""

import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.converter import StorageDriverStoreContext, StorageDriverWorkflowInfo

from orchestrator.engine.objects import Directory
from orchestrator.engine.storage import key_of
from orchestrator.engine.storage_cleaning import Cleaned, Cleaner

LONG_AGO = date(2020, 1, 1)
DEADLINE = timedelta(seconds=30)


def stored(directory: Directory, workflow_id: str | None, day: date = LONG_AGO) -> str:
    """The key of a payload that a workflow, or nobody, stored then."""
    target = workflow_id and StorageDriverWorkflowInfo(namespace="default", id=workflow_id)
    context = StorageDriverStoreContext(target=target or None)
    key = key_of(context, uuid.uuid4().hex * 2, day)
    # Those of nobody are in no namespace.
    directory.put(key, b"12345")
    return key


async def cleaned(client: Client, directory: Directory, *, dry_run: bool = False) -> Cleaned:
    """A clean-up with the least margin."""
    cleaner = Cleaner(client, directory, timedelta(days=2), DEADLINE)
    return await cleaner.clean(dry_run=dry_run)


async def start(client: Client) -> str:
    """A workflow that stays open, since nobody runs it."""
    workflow_id = f"open/{uuid.uuid4()}"
    await client.start_workflow("Nobody", id=workflow_id, task_queue="nobody")
    return workflow_id


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """The storage."""
    return Directory(tmp_path)


async def test_what_no_workflow_needs_goes(client: Client, directory: Directory) -> None:
    """The engine has forgotten the workflow, and it is long ago."""
    keys = [stored(directory, f"gone-{number}") for number in range(30)]
    found = await cleaned(client, directory)
    assert (30, 150, 30, 150, 0) == (
        *(found.stored, found.stored_bytes, found.removed, found.removed_bytes),
        found.needed,
    )
    assert [] == list(directory.sizes("default/"))
    assert keys


async def test_what_an_open_workflow_needs_stays(client: Client, directory: Directory) -> None:
    """However old it is."""
    key, _ = stored(directory, await start(client)), stored(directory, "gone")
    found = await cleaned(client, directory)
    assert (1, 1) == (found.needed, found.removed)
    assert [(key, 5)] == list(directory.sizes("default/"))


async def test_what_a_retained_workflow_needs_stays(client: Client, directory: Directory) -> None:
    """It has ended, and can be read until its retention is over."""
    workflow_id = await start(client)
    await client.get_workflow_handle(workflow_id).terminate()
    key = stored(directory, workflow_id)
    await cleaned(client, directory)
    assert [(key, 5)] == list(directory.sizes("default/"))


async def test_what_is_not_old_stays(client: Client, directory: Directory) -> None:
    """Its workflow may be about to be started; and the engine may have been put back."""
    key = stored(directory, "unknown", datetime.now(UTC).date())
    found = await cleaned(client, directory)
    assert (1, 0, 0) == (found.stored, found.removed, found.needed)
    assert [(key, 5)] == list(directory.sizes("default/"))


async def test_a_dry_run_only_counts(client: Client, directory: Directory) -> None:
    """What it would remove stays."""
    key = stored(directory, "gone")
    found = await cleaned(client, directory, dry_run=True)
    assert (True, 1, 5) == (found.dry_run, found.removed, found.removed_bytes)
    assert [(key, 5)] == list(directory.sizes("default/"))


async def test_what_is_not_ours_stays(client: Client, directory: Directory, tmp_path: Path) -> None:
    """Other files, other namespaces, and what names no workflow."""
    for place in ("default/README", "other/t/20200101/" + "a" * 64):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("x")
    stored(directory, "x" * 1000)
    found = await cleaned(client, directory)
    assert (1, 0, 1) == (found.stored, found.removed, found.unowned)
    assert 3 == len(list(directory.sizes("")))
