"""The agents: who is well and since when, and the operators' orders about them."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from api import agent_examples as examples
from api.callers import by, caller_of
from api.dependencies import Services, ServicesDependency
from api.requests import AnyModel, json_object, validated
from api.tasks import document
from orchestrator.config import AgentUrl
from orchestrator.errors import OrderRefused
from orchestrator.fleet.records import AgentRecord, InstanceChange, InstanceOrder, LimitOrder
from orchestrator.fleet.state import EVENTS_KEPT, unknown_agent
from orchestrator.fleet.views import (
    EVENTS_SHOWN,
    AgentDetail,
    AgentEvents,
    AgentList,
    AgentView,
    FleetStand,
    agent_events,
    agent_view,
    queue_view,
)
from orchestrator.models import LimitMode, Model
from orchestrator.values import Flag, WholeNumber

MAX_ORDER_BYTES = 64 * 1024

router = APIRouter(tags=["agents"])

WHO = "api"

AgentName = Annotated[str, Path(max_length=100, description="As the configuration has it")]


class Reason(Model):
    """Why, for those who read the events."""

    reason: str = Field(default="", max_length=500)


class About(Reason):
    """Which instance an order is about; all of the agent's if none is named."""

    instance: str | None = Field(default=None, max_length=2000)


class Limits(Reason):
    """What is not named stays; ``clear`` takes back what was set at run time first."""

    rate: float | None = Field(
        default=None, strict=True, gt=0, le=1e9, description="Calls a minute"
    )
    burst: WholeNumber | None = Field(default=None, ge=1, le=1_000_000)
    mode: LimitMode | None = None
    max_connections: WholeNumber | None = Field(default=None, ge=1, le=10_000)
    clear: Flag = False


class NewInstance(Reason):
    """An instance to be added."""

    url: AgentUrl = Field(max_length=2000)
    weight: WholeNumber | None = Field(default=None, ge=1, le=1000)


class OldInstance(Reason):
    """An instance to be removed."""

    url: AgentUrl | None = Field(default=None, max_length=2000)


@router.get(
    "/agents",
    response_model=AgentList,
    summary="List agents",
    responses=examples.LIST_RESPONSES,
)
async def agents(services: ServicesDependency) -> Response:
    """All agents, as the fleet knew them at most a second ago; ``fleet`` says how fresh it is."""
    views = [await _view(services, name) for name in services.fleet.agents]
    return document(AgentList(agents=tuple(views), fleet=_stand(services)))


@router.get(
    "/agents/{name}",
    response_model=AgentDetail,
    summary="Look at an agent",
    responses=examples.AGENT_RESPONSES,
)
async def agent(name: AgentName, services: ServicesDependency) -> Response:
    """One agent, with the latest events."""
    return document(await _detail(services, name))


@router.get(
    "/fleet/events",
    response_model=AgentEvents,
    summary="List what happened to the agents",
    responses=examples.EVENTS_RESPONSES,
)
async def fleet_events(
    services: ServicesDependency,
    agent: Annotated[str | None, Query(max_length=100, description="Only those of it")] = None,
    limit: Annotated[int, Query(ge=1, le=EVENTS_KEPT)] = EVENTS_SHOWN,
) -> Response:
    """Changes of health and breakers, and operators' orders, the latest first."""
    fleet = services.fleet
    found = await fleet.events(EVENTS_KEPT) if fleet.reachable else ()
    events = tuple(each for each in found if agent in {None, each.agent})
    return document(AgentEvents(events=events[:limit], fleet=_stand(services)))


async def _view(services: Services, name: str) -> AgentView:
    snapshot = await services.overview.get()
    queue = snapshot.queues.get(name)
    return agent_view(
        name,
        services.fleet.agents[name],
        services.settings,
        queue_view(queue.backlog, has_worker=queue.has_worker)
        if queue
        else queue_view({}, has_worker=None),
        datetime.now(UTC),
    )


async def _detail(services: Services, name: str) -> AgentDetail:
    fleet = services.fleet
    if name not in fleet.agents:
        raise OrderRefused(unknown_agent(name, fleet.agents), "not_found")
    # Nobody waits for a fleet that is known not to answer.
    events = await fleet.events(EVENTS_KEPT) if fleet.reachable else ()
    view = await _view(services, name)
    return AgentDetail(**dict(view), events=agent_events(events, name), fleet=_stand(services))


def _stand(services: Services) -> FleetStand:
    fleet = services.fleet
    return FleetStand(reachable=fleet.reachable, as_of=fleet.as_of, version=fleet.version)


async def _given(request: Request, model: type[AnyModel]) -> AnyModel:
    """The body as a model; none is as good as an empty one."""
    length = request.headers.get("content-length", "0")
    empty = length == "0" and "transfer-encoding" not in request.headers
    return validated(model, {} if empty else await json_object(request, MAX_ORDER_BYTES))


def _route_order(order: str, summary: str, explanation: str) -> None:
    """Serve ``POST /agents/{name}/<order>`` for an order about instances."""

    async def carry_out(
        name: AgentName, request: Request, services: ServicesDependency
    ) -> Response:
        given = await _given(request, About)
        await services.fleet.order(
            order,
            InstanceOrder(
                agent=name,
                instance=given.instance,
                reason=given.reason,
                by=by(caller_of(request), "", WHO),
            ),
        )
        return document(await _detail(services, name))

    carry_out.__doc__ = explanation
    route: Callable[[Callable[..., Awaitable[Response]]], Any] = router.post(
        f"/agents/{{name}}/{order}",
        response_model=AgentDetail,
        summary=summary,
        name=order,
        responses=examples.ORDER_RESPONSES,
        openapi_extra=examples.body_of(About),
    )
    route(carry_out)


_route_order("drain", "Drain", "Send no new calls; those in flight go on.")
_route_order("resume", "Resume", "Take back a drain; what comes back is ramped up.")
_route_order("trip", "Hold the breaker open", "Admit no call until a reset.")
_route_order("reset", "Close the breaker", "Close it, and forget what it had counted.")
_route_order(
    "disable_breaker", "Take the breaker out", "Admit every call, whatever fails, until a reset."
)


@router.post(
    "/agents/{name}/limit",
    response_model=AgentDetail,
    summary="Set limits",
    responses=examples.ORDER_RESPONSES,
    openapi_extra=examples.body_of(Limits),
)
async def limit(name: AgentName, request: Request, services: ServicesDependency) -> Response:
    """Set the agent's rate limit, or how many calls a worker makes at once, at run time."""
    # What was not given must not travel as if it had been.
    given = (await _given(request, Limits)).model_dump(exclude_unset=True)
    await services.fleet.order(
        "set_limit", LimitOrder(agent=name, by=by(caller_of(request), "", WHO), **given)
    )
    return document(await _detail(services, name))


@router.post(
    "/agents/{name}/instances",
    status_code=HTTPStatus.CREATED,
    response_model=AgentDetail,
    summary="Add an instance",
    responses=examples.ADD_RESPONSES,
    openapi_extra=examples.body_of(NewInstance),
)
async def add_instance(name: AgentName, request: Request, services: ServicesDependency) -> Response:
    """Add an instance at run time (201), or give a known one another weight (200).

    It stays until it is removed.
    """
    given = await _given(request, NewInstance)
    order = InstanceChange(agent=name, by=by(caller_of(request), "", WHO), **given.model_dump())
    # Another API may have added it a moment ago.
    await services.fleet.refresh()
    before = services.fleet.agents.get(name, AgentRecord()).instances
    known = order.url in {each.url for each in before}
    await services.fleet.order("add_instance", order)
    detail = await _detail(services, name)
    return document(detail, HTTPStatus.OK if known else HTTPStatus.CREATED)


@router.delete(
    "/agents/{name}/instances",
    response_model=AgentDetail,
    summary="Remove an instance",
    responses=examples.ORDER_RESPONSES,
    openapi_extra=examples.body_of(OldInstance),
)
async def remove_instance(
    name: AgentName,
    request: Request,
    services: ServicesDependency,
    url: Annotated[AgentUrl | None, Query(max_length=2000)] = None,
) -> Response:
    """Remove an instance, named by ``url`` in the query or in the body.

    One of the configuration stays away until it is added again.
    """
    given = await _given(request, OldInstance)
    wanted = url or given.url
    if wanted is None:
        raise OrderRefused("Say which instance: ?url=http://...", "invalid")
    order = InstanceChange(
        agent=name, url=wanted, reason=given.reason, by=by(caller_of(request), "", WHO)
    )
    await services.fleet.order("remove_instance", order)
    return document(await _detail(services, name))
