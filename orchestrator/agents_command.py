"""``orchestrator agents``: how the agents are, and operators' orders, straight from the engine."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text
from temporalio.client import Client

from orchestrator import engine_command
from orchestrator.cli import config_option, plain_errors
from orchestrator.config import Settings
from orchestrator.engine.fleet import Fleet, Order
from orchestrator.engine.queues import describe_queue
from orchestrator.engine_command import (
    AnyModel,
    Result,
    console,
    json_option,
    print_json,
    user,
    valid,
)
from orchestrator.errors import OrderRefused
from orchestrator.fleet.records import (
    AgentRecord,
    FleetEvent,
    HealthState,
    InstanceChange,
    InstanceOrder,
    LimitOrder,
)
from orchestrator.fleet.state import EVENTS_KEPT, unknown_agent
from orchestrator.fleet.views import (
    EVENTS_SHOWN,
    AgentDetail,
    AgentList,
    AgentView,
    FleetStand,
    InstanceView,
    agent_events,
    agent_view,
    queue_view,
)
from orchestrator.models import LimitMode
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.routing import agent_queue

_WIDTH = 160
_STYLES: dict[str, str] = {
    HealthState.HEALTHY: "green",
    HealthState.UNHEALTHY: "red",
    HealthState.UNKNOWN: "dim",
    BreakerState.CLOSED: "green",
    BreakerState.HALF_OPEN: "yellow",
    BreakerState.OPEN: "red",
    BreakerState.FORCED_OPEN: "bold red",
    BreakerState.DISABLED: "yellow",
}


@dataclass(frozen=True)
class _Engine:
    """What the commands work with."""

    settings: Settings
    fleet: Fleet
    depth: Callable[[str], Coroutine[Any, Any, Any]]


def _order_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every order takes."""
    reason = click.option("--reason", default="", help="Why; kept with the agent's events.")
    return reason(config_option(json_option()(command)))


@click.group(name="agents", invoke_without_command=True)
@config_option
@json_option()
@click.pass_context
@plain_errors
def command(context: click.Context, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Look at the agents, and steer them.

    \b
    Examples:
      orchestrator agents
      orchestrator agents show translation_agent
      orchestrator agents drain translation_agent --instance http://10.0.0.7:8101
      orchestrator agents limit translation_agent --rate 50 --mode queue
      orchestrator agents add-instance translation_agent http://10.0.0.8:8101 --weight 2
    """
    if engine_command.is_for_subcommand(context):
        return
    found = _run(config_path, _list)
    if as_json:
        print_json(found)
        return
    console(_WIDTH).print(_agents(found.agents))


@command.command()
@click.argument("name")
@config_option
@json_option()
@plain_errors
def show(name: str, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show one agent: its instances, limits, queue, and what happened.

    \b
    Examples:
      orchestrator agents show translation_agent
    """

    async def look(engine: _Engine) -> AgentDetail:
        records, version = await _records(engine)
        if name not in records:
            raise OrderRefused(unknown_agent(name, records), "not_found")
        return await _detail(engine, name, records[name], version)

    _answer(_run(config_path, look), as_json=as_json)


@command.command()
@click.option("--agent", help="Only those of this agent.")
@click.option(
    "--limit", type=click.IntRange(1, EVENTS_KEPT), default=EVENTS_SHOWN, show_default=True
)
@config_option
@json_option()
@plain_errors
def events(agent: str | None, limit: int, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show what happened to the agents, the latest first.

    \b
    Examples:
      orchestrator agents events
      orchestrator agents events --agent translation_agent --limit 100
    """

    async def look(engine: _Engine) -> list[FleetEvent]:
        found = await engine.fleet.events(EVENTS_KEPT)
        return [each for each in found if agent in {None, each.agent}][:limit]

    found = _run(config_path, look)
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
        return
    console(_WIDTH).print(_events(found))


def _steering(name: str, explanation: str, example: str) -> None:
    """The command for an order about one instance or all of an agent's."""

    def steer(
        agent: str,
        instance: str | None,
        reason: str,
        config_path: Path | None,
        as_json: bool,  # noqa: FBT001 - click's way
    ) -> None:
        order = _order(InstanceOrder, agent=agent, instance=instance, reason=reason)
        _carry_out(config_path, name, order, as_json=as_json)

    steer.__doc__ = f"{explanation}\n\n\b\nExamples:\n  orchestrator agents {example}"
    option = click.option("--instance", help="One URL; all of the agent's without it.")
    decorated = click.argument("agent", metavar="NAME")(option(_order_options(plain_errors(steer))))
    command.command(name.replace("_", "-"))(decorated)


_steering(
    "drain",
    "Send no new calls; those under way go on.",
    "drain translation_agent --instance http://10.0.0.7:8101 --reason upgrade",
)
_steering("resume", "Send calls again to what was drained.", "resume translation_agent")
_steering(
    "trip",
    "Hold the breaker open until a reset.",
    'trip translation_agent --reason "wrong answers"',
)
_steering("reset", "Close the breaker and forget what it counted.", "reset translation_agent")
_steering(
    "disable_breaker",
    "Admit every call, whatever fails, until a reset.",
    "disable-breaker translation_agent",
)


@command.command()
@click.argument("agent", metavar="NAME")
@click.option("--rate", type=float, help="Calls a minute.")
@click.option("--burst", type=int, help="Calls at once after a pause.")
@click.option("--mode", type=click.Choice([each.value for each in LimitMode]))
@click.option("--max-connections", type=int, help="Calls that a worker makes at once.")
@click.option("--clear", is_flag=True, help="First take back what was set at run time.")
@_order_options
@plain_errors
def limit(agent: str, config_path: Path | None, as_json: bool, **fields: Any) -> None:  # noqa: FBT001 - click's way
    """Set limits over those of the configuration; what is not named stays.

    \b
    Examples:
      orchestrator agents limit translation_agent --rate 50 --burst 10 --mode queue
      orchestrator agents limit translation_agent --clear
    """
    order = _order(LimitOrder, agent=agent, **fields)
    _carry_out(config_path, "set_limit", order, as_json=as_json)


@command.command("add-instance")
@click.argument("agent", metavar="NAME")
@click.argument("url")
@click.option("--weight", type=int, help="Its share of the calls, from 1 to 1000.")
@_order_options
@plain_errors
def add_instance(agent: str, config_path: Path | None, as_json: bool, **fields: Any) -> None:  # noqa: FBT001 - click's way
    """Add an instance at run time, or give a known one another weight.

    \b
    Examples:
      orchestrator agents add-instance translation_agent http://10.0.0.8:8101 --weight 2
    """
    order = _order(InstanceChange, agent=agent, **fields)
    _carry_out(config_path, "add_instance", order, as_json=as_json)


@command.command("remove-instance")
@click.argument("agent", metavar="NAME")
@click.argument("url")
@_order_options
@plain_errors
def remove_instance(agent: str, config_path: Path | None, as_json: bool, **fields: Any) -> None:  # noqa: FBT001 - click's way
    """Take an instance away; one of the configuration stays away until it is added again.

    \b
    Examples:
      orchestrator agents remove-instance translation_agent http://10.0.0.8:8101
    """
    order = _order(InstanceChange, agent=agent, **fields)
    _carry_out(config_path, "remove_instance", order, as_json=as_json)


def _order(kind: type[AnyModel], **fields: Any) -> AnyModel:
    return valid(kind, {**fields, "by": user()})


def _carry_out(config_path: Path | None, name: str, order: Order, *, as_json: bool) -> None:
    async def ordered(engine: _Engine) -> AgentDetail:
        record = await engine.fleet.order(name, order)
        version = (await engine.fleet.snapshot()).version
        return await _detail(engine, order.agent, record, version)

    _answer(_run(config_path, ordered), as_json=as_json)


async def _list(engine: _Engine) -> AgentList:
    records, version = await _records(engine)
    views = await asyncio.gather(*(_view(engine, *each) for each in records.items()))
    return AgentList(agents=tuple(views), fleet=_stand(version))


async def _records(engine: _Engine) -> tuple[dict[str, AgentRecord], int]:
    snapshot = await engine.fleet.snapshot()
    return snapshot.agents or {}, snapshot.version


async def _detail(engine: _Engine, name: str, record: AgentRecord, version: int) -> AgentDetail:
    return AgentDetail(
        **dict(await _view(engine, name, record)),
        events=agent_events(await engine.fleet.events(EVENTS_KEPT), name),
        fleet=_stand(version),
    )


async def _view(engine: _Engine, name: str, record: AgentRecord) -> AgentView:
    queue = await engine.depth(name)
    depth = queue_view(queue.backlog, has_worker=queue.has_worker)
    return agent_view(name, record, engine.settings, depth, datetime.now(UTC))


def _stand(version: int) -> FleetStand:
    return FleetStand(reachable=True, as_of=datetime.now(UTC), version=version)


def _run(
    config_path: Path | None, work: Callable[[_Engine], Coroutine[Any, Any, Result]]
) -> Result:
    async def connected(settings: Settings, client: Client) -> Result:
        seconds = settings.temporal.rpc_timeout
        turn = asyncio.Semaphore(8)

        async def depth(agent: str) -> Any:
            async with turn:
                queue = agent_queue(agent)
                return await describe_queue(client, queue, timedelta(seconds=seconds))

        return await work(_Engine(settings, Fleet(client, seconds), depth))

    return engine_command.run(config_path, "agents", connected)


def _answer(detail: AgentDetail, *, as_json: bool) -> None:
    if as_json:
        print_json(detail)
        return
    out = console(_WIDTH)
    out.print(_instances(detail))
    for url in detail.removed:
        out.print(f"Removed at run time: {url}", soft_wrap=True)
    out.print(f"Limits: {_limits(detail)}")
    out.print(f"Queue:  {_queue(detail)}")
    if detail.events:
        out.print(_events(detail.events))


def _coloured(word: str) -> Text:
    return Text(word, _STYLES.get(word, ""))


def _agents(agents: Iterable[AgentView]) -> Table:
    table = Table(title="Agents")
    for heading in ("agent", "health", "breaker", "instances", "limits", "waiting", "worker"):
        table.add_column(heading, overflow="fold")
    for each in agents:
        well = sum(one.health.state is HealthState.HEALTHY for one in each.instances)
        drained = sum(one.draining for one in each.instances)
        table.add_row(
            Text(each.name),
            _coloured("healthy" if each.healthy else "unhealthy"),
            _coloured(each.breaker),
            Text(
                f"{well} of {len(each.instances)} healthy"
                + (f", {drained} draining" if drained else "")
            ),
            Text(_limits(each)),
            Text(str(sum(each.queue.depth.values()))),
            _has_worker(each),
        )
    return table


def _has_worker(view: AgentView) -> Text:
    return Text("yes", "green") if view.queue.has_worker else Text("none", "red")


def _instances(view: AgentView) -> Table:
    table = Table(title=view.name)
    for heading in ("instance", "weight", "health", "breaker", "remarks", "why"):
        table.add_column(heading, overflow="fold")
    for each in view.instances:
        until = f" until {each.breaker.until:%H:%M:%S}" if each.breaker.until else ""
        why = "; ".join(filter(None, (each.health.reason, each.breaker.reason)))
        table.add_row(
            Text(each.url),
            Text(str(each.weight)),
            _coloured(each.health.state),
            _coloured(each.breaker.state) + Text(until),
            Text(_remarks(each)),
            Text(why),
        )
    return table


def _remarks(instance: InstanceView) -> str:
    words = (("draining", instance.draining), ("added at run time", instance.added))
    return ", ".join(word for word, holds in words if holds)


def _limits(view: AgentView) -> str:
    limits = view.limits
    words = [f"{limits.max_connections} at once for each worker"]
    if limits.rate is not None:
        words.insert(0, f"{limits.rate:g} a minute, burst {limits.burst}, {limits.mode}")
    if limits.set_at_run_time:
        words.append(f"set at run time: {', '.join(limits.set_at_run_time)}")
    return "; ".join(words)


def _queue(view: AgentView) -> str:
    waiting = ", ".join(f"{name} {count}" for name, count in view.queue.depth.items())
    takers = "a worker takes from it" if view.queue.has_worker else "no worker takes from it"
    return f"{waiting or 'nothing waits'}; {takers}"


def _events(found: Iterable[FleetEvent]) -> Table:
    table = Table(title="Events, latest first (UTC)")
    for heading in ("at", "agent", "instance", "what", "why", "by"):
        table.add_column(heading, overflow="fold")
    for each in found:
        at = f"{each.at:%Y-%m-%d %H:%M:%S}"
        # Texts, so that brackets in a reason are not read as markup.
        cells = (at, each.agent, each.instance or "", each.what, each.reason, each.by)
        table.add_row(*map(Text, cells))
    return table
