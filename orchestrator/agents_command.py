"""``orchestrator agents``: how the agents are, and operators' orders, by the API."""

import json
from typing import Any

import click

from orchestrator.agents_display import print_agent, print_agents, print_events
from orchestrator.api_command import Api, Id, api_command, is_for_subcommand
from orchestrator.display import print_json
from orchestrator.fleet.state import EVENTS_KEPT
from orchestrator.fleet.views import EVENTS_SHOWN, AgentDetail
from orchestrator.models import LimitMode
from orchestrator.steer_command import ORDERS


@click.group(name="agents", invoke_without_command=True)
@click.pass_context
@api_command
def command(context: click.Context, api: Api, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Look at the agents, and steer them.

    \b
    Examples:
      orchestrator agents
      orchestrator agents show translation_agent
      orchestrator agents drain translation_agent --instance http://10.0.0.7:8101
      orchestrator agents limit translation_agent --rate 50 --mode queue
      orchestrator agents add-instance translation_agent http://10.0.0.8:8101 --weight 2
    """
    if is_for_subcommand(context):
        return
    with api.client() as client:
        found = client.agents()
    if as_json:
        print_json(found)
    else:
        print_agents(found.agents)


@command.command()
@click.argument("agent", metavar="AGENT", type=Id())
@api_command
def show(api: Api, agent: str, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show one agent: its instances, limits, queue, and what happened.

    \b
    Examples:
      orchestrator agents show translation_agent
    """
    with api.client() as client:
        _answer(client.agent(agent), as_json=as_json)


@command.command()
@click.option("--agent", help="Only those of this agent.")
@click.option(
    "--limit", type=click.IntRange(1, EVENTS_KEPT), default=EVENTS_SHOWN, show_default=True
)
@api_command
def events(api: Api, agent: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show what happened to the agents, the latest first.

    \b
    Examples:
      orchestrator agents events
      orchestrator agents events --agent translation_agent --limit 100
    """
    with api.client() as client:
        found = client.agent_events(agent=agent, limit=limit).events
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
    else:
        print_events(found)


for order in ORDERS:
    command.add_command(order)


@command.command()
@click.argument("agent", metavar="AGENT", type=Id())
@click.option("--rate", type=float, help="Calls a minute.")
@click.option("--burst", type=int, help="Calls at once after a pause.")
@click.option("--mode", type=click.Choice([each.value for each in LimitMode]))
@click.option("--max-connections", type=int, help="Calls that a worker makes at once.")
@click.option("--clear", is_flag=True, help="First take back what was set at run time.")
@click.option("--reason", default="", help="Why; kept with the agent's events.")
@api_command
def limit(api: Api, agent: str, as_json: bool, **fields: Any) -> None:  # noqa: FBT001 - click's way
    """Set limits over those of the configuration; what is not named stays.

    \b
    Examples:
      orchestrator agents limit translation_agent --rate 50 --burst 10 --mode queue
      orchestrator agents limit translation_agent --clear
    """
    with api.client() as client:
        _answer(client.limit(agent, **fields), as_json=as_json)


@command.command("add-instance")
@click.argument("agent", metavar="AGENT", type=Id())
@click.argument("instance", metavar="URL")
@click.option("--weight", type=int, help="Its share of the calls, from 1 to 1000.")
@click.option("--reason", default="", help="Why; kept with the agent's events.")
@api_command
def add_instance(api: Api, agent: str, instance: str, as_json: bool, **fields: Any) -> None:  # noqa: FBT001 - click's way
    """Add an instance at run time, or give a known one another weight.

    \b
    Examples:
      orchestrator agents add-instance translation_agent http://10.0.0.8:8101 --weight 2
    """
    with api.client() as client:
        _answer(client.add_instance(agent, instance, **fields), as_json=as_json)


@command.command("remove-instance")
@click.argument("agent", metavar="AGENT", type=Id())
@click.argument("instance", metavar="URL")
@click.option("--reason", default="", help="Why; kept with the agent's events.")
@api_command
def remove_instance(api: Api, agent: str, instance: str, reason: str, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Take an instance away; one of the configuration stays away until it is added again.

    \b
    Examples:
      orchestrator agents remove-instance translation_agent http://10.0.0.8:8101
    """
    with api.client() as client:
        _answer(client.remove_instance(agent, instance, reason=reason), as_json=as_json)


def _answer(detail: AgentDetail, *, as_json: bool) -> None:
    if as_json:
        print_json(detail)
    else:
        print_agent(detail)
