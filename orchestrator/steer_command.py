"""``orchestrator drain``, ``resume``, ``trip`` and ``reset``: operators' orders, by the API."""

import click

from orchestrator.agents_display import print_instances
from orchestrator.api_command import Api, Id, api_command
from orchestrator.display import print_json


def _steering(order: str, explanation: str, example: str) -> click.Command:
    """The command of an order about one instance or all of an agent's."""

    def steer(agent: str, api: Api, instance: str | None, reason: str, as_json: bool) -> None:  # noqa: FBT001 - click's way
        with api.client() as client:
            detail = getattr(client, order)(agent, instance=instance, reason=reason)
        if as_json:
            print_json(detail)
        else:
            print_instances(detail.instances)

    steer.__doc__ = f"{explanation}\n\n\b\nExamples:\n  orchestrator {example}"
    decorated = api_command(steer)
    for option in (
        click.option("--reason", default="", help="Why; kept with the agent's events."),
        click.option("--instance", help="One URL; all of the agent's without it."),
        click.argument("agent", metavar="AGENT", type=Id()),
    ):
        decorated = option(decorated)
    return click.command(order.replace("_", "-"))(decorated)


drain = _steering(
    "drain",
    "Send AGENT no new calls; those under way go on.",
    "drain translation_agent --instance http://10.0.0.7:8101 --reason upgrade",
)
resume = _steering("resume", "Send calls again to what was drained.", "resume translation_agent")
trip = _steering(
    "trip",
    "Hold AGENT's breakers open until a reset.",
    'trip translation_agent --reason "wrong answers"',
)
reset = _steering(
    "reset", "Close AGENT's breakers and forget what they counted.", "reset translation_agent"
)
disable_breaker = _steering(
    "disable_breaker",
    "Admit every call to AGENT, whatever fails, until a reset.",
    "agents disable-breaker translation_agent",
)
ORDERS = (drain, resume, trip, reset, disable_breaker)
