"""``orchestrator submit``: hand in one task."""

import sys
from collections.abc import Mapping
from typing import Any

import click

from orchestrator.api_command import Api, Document, Seconds, api_command, patience_of, wait_option
from orchestrator.display import print_fields, print_json
from orchestrator.exits import Exit, code_of_status
from orchestrator.status_command import end_with, wait_for
from orchestrator.statuses import DryRun, TaskStatus
from orchestrator.values import MAX_PRIORITY, MIN_PRIORITY


@click.command()
@click.argument("pattern", required=False)
@click.option("--payload", type=Document(), help="What the agent gets: an object. [default: {}]")
@click.option("--priority", type=click.IntRange(MIN_PRIORITY, MAX_PRIORITY), help="5: most urgent.")
@click.option("--metadata", type=Document(), help="Your own notes, kept with the task.")
@click.option("--timeout", type=Seconds(), help="Seconds until the task must have ended.")
@click.option("--callback-url", help="Who is to be told of the end.")
@click.option("--tenant", help="On whose behalf.")
@click.option("--capability", "capabilities", multiple=True, help="Instead of a pattern; repeated.")
@click.option("--idempotency-key", help="One task for each; made anew if absent.")
@wait_option("Wait so long for the end.")
@click.option("--dry-run", is_flag=True, help="Only say where it would go, and if it would.")
@api_command
def command(
    api: Api,
    wait: float | None,
    idempotency_key: str | None,
    dry_run: bool,  # noqa: FBT001 - click's way
    as_json: bool,  # noqa: FBT001 - click's way
    **fields: Any,
) -> None:
    """Submit a task of the kind PATTERN.

    \b
    Examples:
      orchestrator submit upload_pdf --payload '{"file": "document.pdf"}' --wait
      orchestrator submit upload_pdf --payload task.json --priority 5 --wait 60
      jq .order order.json | orchestrator submit order --payload - --idempotency-key order-17
      orchestrator submit upload_pdf --payload '{}' --dry-run
    """
    task = _task(**fields)
    with api.client() as client:
        if dry_run:
            _show(client.dry_run(task), as_json=as_json)
            return
        status = client.submit(task, idempotency_key=idempotency_key)
    if wait is not None and not status.status.is_final:
        status = _waited(api, status.task_id, wait)
    end_with(status, as_json=as_json)


def _task(payload: Mapping[str, Any] | None, **fields: Any) -> dict[str, Any]:
    if fields["pattern"] is None and not fields["capabilities"]:
        raise click.UsageError("Name a PATTERN, or what the agent must be able to do: --capability")
    given = {name: value for name, value in fields.items() if value not in (None, ())}
    return {"payload": payload or {}, **given}


def _waited(api: Api, task_id: str, wait: float) -> TaskStatus:
    # Said to programs too: who ends this command by force must know the task that goes on.
    announced = f"Task {task_id} is accepted; waiting for its end"
    return wait_for(api, task_id, patience_of(wait), announced)


def _show(answer: DryRun, *, as_json: bool) -> None:
    plan, verdict = answer.plan, answer.admission
    if as_json:
        print_json(answer)
    else:
        print_fields(
            {
                "admitted": "yes" if verdict.admitted else "no",
                "answer": str(verdict.status_code),
                "detail": verdict.detail,
                "retry_after": verdict.retry_after,
                "agent": plan.agent,
                "endpoint": plan.endpoint,
                "chosen_by": plan.chosen_by,
                "dispatch": plan.dispatch.value,
                "priority": plan.priority,
                "deadline": f"{plan.deadline:g} s",
                "attempts": plan.retry.max_attempts,
                "fallbacks": ", ".join(each.agent for each in plan.fallbacks),
            }
        )
    code = code_of_status(verdict.status_code)
    if code is not Exit.OK:
        sys.exit(code)
