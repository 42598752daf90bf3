"""``orchestrator storage``: the storage of large payloads."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import click

from orchestrator.api_command import user
from orchestrator.cli import config_option, plain_errors, settings_of
from orchestrator.config import Settings
from orchestrator.display import print_fields, print_json
from orchestrator.engine.connect import connect
from orchestrator.engine.objects import objects_of
from orchestrator.engine.storage_cleaning import Cleaned, Cleaner
from orchestrator.errors import OrchestratorError, StartupError


@click.group()
def storage() -> None:
    """Look after the storage of large payloads (payloads.storage).

    \b
    Examples:
      orchestrator storage clean --dry-run
      orchestrator storage clean --config production.yaml --json
    """


@storage.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Only count what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@plain_errors
def clean(config_path: Path | None, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Remove payloads that no workflow needs any more.

    Those are removed that are older than the engine's retention and payloads.storage.margin, and
    whose workflow the engine has forgotten. What open or retained workflows need stays, dead
    letters among them. Run it once a day.

    \b
    Examples:
      orchestrator storage clean --dry-run
      orchestrator storage clean --config production.yaml --json
    """
    settings = settings_of(config_path)
    try:
        found = asyncio.run(_clean(settings, dry_run=dry_run))
    except OrchestratorError as error:
        raise error if isinstance(error, StartupError) else StartupError(str(error)) from None
    if as_json:
        print_json(found)
    else:
        _show(found)


async def _clean(settings: Settings, *, dry_run: bool) -> Cleaned:
    section = settings.payloads.storage
    if not section.is_on:
        raise StartupError("There is no storage to clean: payloads.storage.type is none")
    objects = objects_of(section, settings.storage.data_dir)
    objects.check()
    client = await connect(settings.temporal, identity=f"{user()}@storage-clean", register=False)
    deadline = timedelta(seconds=settings.temporal.rpc_timeout)
    cleaner = Cleaner(client, objects, timedelta(seconds=section.margin), deadline)
    return await cleaner.clean(dry_run=dry_run)


def _show(found: Cleaned) -> None:
    removed = "to be removed" if found.dry_run else "removed"
    print_fields(
        {
            "storage": found.place,
            "stored": _count(found.stored, found.stored_bytes),
            removed: _count(found.removed, found.removed_bytes),
            "needed still": f"{found.needed:,} objects older than {_moment(found.before)}",
            "unowned": f"{found.unowned:,} objects, which stay",
        }
    )


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _count(number: int, size: int) -> str:
    return f"{number:,} objects, {size:,} bytes"
