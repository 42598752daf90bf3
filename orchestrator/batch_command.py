"""``orchestrator batch``: hand in many tasks, and see them through."""

import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orchestrator.api_command import FOREVER, Api, Id, Seconds, api_command, goes_on
from orchestrator.batch_lines import Lines, read_lines
from orchestrator.batches import BadItem, BatchRehearsal, BatchStatus
from orchestrator.client import InvalidRequest, OrchestratorClient, StillOpen
from orchestrator.display import print_fields, print_json, tell
from orchestrator.exits import Exit, code_of_status
from orchestrator.models import TaskState

LOOK_SECONDS = 1.0


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--id", "batch_id", type=Id(), help="Follow this batch instead of starting one.")
@click.option("--partial", is_flag=True, help="Start the good lines even if others are wrong.")
@click.option(
    "--wait",
    type=Seconds(forever=True),
    default=FOREVER,
    help="Wait so long for the end; 0: not at all. [default: as long as it takes]",
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write the tasks with their results there, one a line, in the file's order.",
)
@click.option("--idempotency-key", help="One batch for each; made anew if absent.")
@click.option("--dry-run", is_flag=True, help="Only check the lines, and say where they would go.")
@api_command
def command(
    api: Api,
    file: str | None,
    batch_id: str | None,
    wait: float,
    results: str | None,
    as_json: bool,  # noqa: FBT001 - click's way
    **options: Any,
) -> None:
    """Submit the tasks of FILE, one JSON object a line, as one batch; wait until all have ended.

    \b
    Examples:
      orchestrator batch tasks.ndjson --results results.ndjson
      orchestrator batch tasks.ndjson --dry-run
      generate-tasks | orchestrator batch - --partial --wait 0
      orchestrator batch --id BATCH_ID --results results.ndjson
    """
    if (file is None) == (batch_id is None):
        raise click.UsageError("Name one of: a FILE of tasks, or a batch by --id.")
    if as_json and results == "-":
        raise click.UsageError("--json and --results - would both write to standard output.")
    _check_writable(results)
    if file is not None:
        started = _start(api, read_lines(file), **options, as_json=as_json)
        if started is None:
            return
        batch_id = started.batch_id
    status = _waited(api, str(batch_id), wait)
    if results is not None:
        _write_results(api, str(batch_id), results)
    _finish(status, as_json=as_json, beside=results == "-")


def _check_writable(results: str | None) -> None:
    """Before anything is started that has its results there."""
    if results in {None, "-"}:
        return
    path = Path(str(results))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.BadParameter(f"{results} cannot be written.", param_hint="'--results'")


def _start(
    api: Api,
    lines: Lines,
    *,
    partial: bool,
    dry_run: bool,
    idempotency_key: str | None,
    as_json: bool,
) -> BatchStatus | None:
    if lines.wrong and not partial:
        _tell_wrong(lines.wrong, len(lines.wrong), lines)
        raise click.UsageError(f"{_many(len(lines.wrong))} wrong, and nothing was started.")
    with api.client() as client:
        try:
            if dry_run:
                _rehearse(client.batch_dry_run(lines.content, partial=partial), lines, as_json)
                return None
            accepted = client.batch(lines.content, partial=partial, idempotency_key=idempotency_key)
        except InvalidRequest as error:
            bad = [BadItem.model_validate(each) for each in error.problem.get("errors", ())]
            if not bad or "bad_items" not in error.problem:
                raise
            count = int(error.problem["bad_items"])
            _tell_wrong(bad, count, lines)
            raise click.UsageError(f"{_many(count)} wrong, and nothing was started.") from None
    _tell_wrong(accepted.rejected, accepted.rejected_items, lines)
    tell(f"Batch {accepted.batch_id} is accepted: {accepted.total:,} tasks")
    return accepted


def _many(count: int) -> str:
    return "1 line is" if count == 1 else f"{count:,} lines are"


def _tell_wrong(bad: Any, count: int, lines: Lines) -> None:
    for each in bad:
        what = ": ".join(filter(None, (each.field, each.message)))
        tell(f"{lines.name}, line {lines.number_of(each.index)}: {what}")
    seen = len({each.index for each in bad})
    if count > seen:
        tell(f"... and {count - seen:,} more")


def _rehearse(answer: BatchRehearsal, lines: Lines, as_json: bool) -> None:  # noqa: FBT001
    _tell_wrong(answer.rejected, answer.rejected_items, lines)
    if as_json:
        print_json(answer)
    else:
        print_fields(
            {
                "tasks": answer.total,
                **{f"to {name}": count for name, count in answer.agents.items()},
                "admitted": "yes" if answer.admission.admitted else "no",
                "detail": answer.admission.detail,
            }
        )
    code = code_of_status(answer.admission.status_code)
    if code is not Exit.OK:
        sys.exit(code)


def _waited(api: Api, batch_id: str, seconds: float) -> BatchStatus:
    how = f"The batch goes on; follow it with: orchestrator batch --id {batch_id}"
    with goes_on(how), api.client(patient=True) as client, _bar() as bar:
        return _followed(client, batch_id, seconds, bar)


def _bar() -> Progress:
    """On standard error, and only for people."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[lost]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def _followed(
    client: OrchestratorClient, batch_id: str, seconds: float, bar: Progress
) -> BatchStatus:
    until = time.monotonic() + seconds
    status = client.batch_status(batch_id)
    shown = bar.add_task("tasks", total=status.total, lost="")
    while True:
        lost = status.failed + status.cancelled
        words = f"{lost:,} without success" if lost else ""
        bar.update(shown, completed=status.total - status.pending, lost=words)
        if status.status.is_final or seconds == 0:
            return status
        if time.monotonic() >= until:
            raise StillOpen(status, seconds)
        asked = time.monotonic()
        status = client.batch_status(batch_id, wait=LOOK_SECONDS)
        if not status.status.is_final:
            # An API that stops answers at once.
            time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - asked)))


def _write_results(api: Api, batch_id: str, results: str) -> None:
    with api.client(patient=True) as client:
        if results == "-":
            _write(client, batch_id, sys.stdout)
            return
        with Path(results).open("w", encoding="utf-8") as file:
            _write(client, batch_id, file)


def _write(client: OrchestratorClient, batch_id: str, file: TextIO) -> None:
    file.writelines(each.model_dump_json() + "\n" for each in client.results(batch_id))


def _finish(status: BatchStatus, *, as_json: bool, beside: bool) -> None:
    if as_json:
        print_json(status)
    elif beside:
        tell(f"{status.completed:,} of {status.total:,} completed, {status.failed:,} failed")
    else:
        print_fields(status.model_dump(mode="json"))
    ended_badly = status.status in {TaskState.FAILED, TaskState.CANCELLED}
    if ended_badly or (status.status.is_final and status.completed < status.total):
        sys.stdout.flush()
        sys.exit(Exit.FAILED)
