"""``orchestrator aggregate``: join tasks into one answer."""

import json
import sys
from typing import Any

import click

from orchestrator.aggregate_status import AggregateState, AggregateStatus
from orchestrator.aggregates import Merge, OnFailure, OnMet, Simple
from orchestrator.api_command import (
    Api,
    Id,
    Seconds,
    api_command,
    goes_on,
    patience_of,
    wait_option,
)
from orchestrator.display import Column, print_fields, print_json, print_rows
from orchestrator.exits import Exit

_ENDS = (
    Column("task", 36, "whole"),
    Column("agent", 24),
    Column("state", 9, "whole"),
    Column("result or error", fit="fold"),
)


class JoinRule(click.ParamType[Any]):
    """``all``, ``any``, a number of tasks, or a percentage of failed ones."""

    name = "all|any|number|percent%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The join as the API takes it."""
        if value in set(Simple):
            return value
        try:
            if value.endswith("%"):
                return {"max_failed_percent": float(value[:-1])}
            return {"at_least": int(value)}
        except ValueError:
            self.fail(f"{value!r} is none of: all, any, 3, 20%.", param, ctx)


def _choice(kind: Any) -> click.Choice[str]:
    return click.Choice([each.value for each in kind])


@click.command()
@click.argument("task_ids", metavar="IDS...", nargs=-1)
@click.option(
    "--id", "aggregate_id", type=Id(), help="Look at this aggregate instead of starting one."
)
@click.option(
    "--join",
    type=JoinRule(),
    help="When it is met: all or any completed, so many completed, at most so many % failed.",
)
@click.option("--deadline", type=Seconds(), help="Seconds after which it ends with what there is.")
@click.option("--on-met", type=_choice(OnMet), help="What becomes of the other tasks then.")
@click.option("--on-failure", type=_choice(OnFailure), help="What a failed task means for others.")
@click.option("--merge", type=_choice(Merge), help="How the results become one.")
@click.option("--idempotency-key", help="One aggregate for each; made anew if absent.")
@wait_option("Wait so long for the end.")
@api_command
def command(
    api: Api,
    task_ids: tuple[str, ...],
    aggregate_id: str | None,
    wait: float | None,
    as_json: bool,  # noqa: FBT001 - click's way
    **policy: Any,
) -> None:
    """Join the tasks IDS into one answer; ``-`` reads the ids, one a line, from standard input.

    \b
    Examples:
      orchestrator aggregate ID1 ID2 ID3 --wait
      orchestrator aggregate ID1 ID2 ID3 --join 2 --on-met cancel_rest --wait 60
      orchestrator tasks --batch BATCH_ID --json | jq -r .tasks[].task_id | orchestrator aggregate -
      orchestrator aggregate --id AGGREGATE_ID
    """
    ids = _ids(task_ids)
    if bool(ids) == (aggregate_id is not None):
        raise click.UsageError("Name one of: the IDS of tasks, or an aggregate by --id.")
    with api.client() as client:
        if aggregate_id is None:
            status = client.aggregate(ids, **policy)
        else:
            status = client.aggregate_status(aggregate_id)
    if wait is not None and status.status is AggregateState.RUNNING:
        status = _waited(api, status.aggregate_id, patience_of(wait))
    _finish(status, as_json=as_json)


def _ids(given: tuple[str, ...]) -> list[str]:
    if given != ("-",):
        return list(given)
    return [line.strip() for line in sys.stdin if line.strip()]


def _waited(api: Api, aggregate_id: str, seconds: float | None) -> AggregateStatus:
    how = f"It goes on; look at it with: orchestrator aggregate --id {aggregate_id}"
    with goes_on(how), api.client(patient=True) as client:
        return client.wait_aggregate(aggregate_id, timeout=seconds)


def _finish(status: AggregateStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(status)
    else:
        _show(status)
    if status.status in {AggregateState.FAILED, AggregateState.CANCELLED}:
        sys.stdout.flush()
        sys.exit(Exit.FAILED)


def _show(status: AggregateStatus) -> None:
    fields = status.model_dump(mode="json", exclude={"results", "errors"})
    print_fields(fields)
    rows = [
        (each.task_id, each.agent, "completed", json.dumps(each.result, ensure_ascii=False))
        for each in status.results
    ]
    rows += [(each.task_id, each.agent, "failed", each.error) for each in status.errors]
    if rows:
        print_rows(_ENDS, rows)
