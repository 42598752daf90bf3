"""What operators order of AgentFleet, by updates of plain JSON as the Web UI sends them."""

from typing import Any

import pytest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from orchestrator.fleet.records import FLEET_ID
from tests.workflows.fleet_stage import A, B, config, fleet_of, settled


async def refusal(client: Client, name: str, *arguments: Any) -> ApplicationError:
    """Why an update is refused."""
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await client.get_workflow_handle(FLEET_ID).execute_update(name, args=list(arguments))
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError), repr(cause)
    return cause


async def test_orders_are_obeyed(client: Client) -> None:
    """Each answers with the agent as it is then."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config())
        await settled(fleet)
        handle = client.get_workflow_handle(FLEET_ID)

        async def order(name: str, **arguments: Any) -> dict[str, Any]:
            answer: dict[str, Any] = await handle.execute_update(
                name, {"agent": "reader", **arguments}
            )
            return {each["url"]: each for each in answer["instances"]} | {"whole": answer}

        drained = await order("drain", instance=A)
        resumed = await order("resume")
        tripped = await order("trip", reason="maintenance")
        disabled = await order("disable_breaker", instance=B)
        reset = await order("reset")
        limited = await order("set_limit", rate=50, mode="queue")
        cleared = await order("set_limit", clear=True, max_connections=3)
        added = await order("add_instance", url="http://c/", weight=3)
        removed = await order("remove_instance", url=A)
        # Health checks go on meanwhile.
        happened = [each.what for each in await fleet.events(30) if not each.by]
    assert (True, False) == (drained[A]["draining"], drained[B].get("draining", False))
    assert [False, False] == [resumed[url].get("draining", False) for url in (A, B)]
    assert ["forced_open"] * 2 == [tripped[url]["order"]["state"] for url in (A, B)]
    assert "disabled" == disabled[B]["order"]["state"]
    assert ["closed"] * 2 == [reset[url]["order"]["state"] for url in (A, B)]
    assert {"rate": 50, "mode": "queue"} == limited["whole"]["limits"]
    assert {"max_connections": 3} == cleared["whole"]["limits"]
    assert (3, True) == (added["http://c"]["weight"], added["http://c"]["added"])
    assert ({B, "http://c", "whole"}, [A]) == (set(removed), removed["whole"]["removed"])
    assert [
        "instance_removed",
        "instance_added",
        *["limit_set"] * 2,
        *["reset"] * 2,
        "breaker_disabled",
        *["tripped"] * 2,
        "resumed",
        "drained",
    ] == happened


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "words"),
    [
        ("drain", {"agent": "raeder"}, "not_found", "did you mean 'reader'?"),
        ("drain", {"agent": "xyz"}, "not_found", "'xyz' is not known; there are: reader"),
        ("trip", {"agent": "reader", "instance": "http://x"}, "not_found", f"it has: {A}"),
        ("remove_instance", {"agent": "reader", "url": A}, "conflict", "the last instance"),
        ("set_limit", {"agent": "reader"}, "invalid", "Name what to set"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    client: Client, name: str, arguments: dict[str, Any], kind: str, words: str
) -> None:
    """With its kind for programs, and clear words."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config(A))
        error = await refusal(client, name, arguments)
    assert ("OrderRefused", [kind]) == (error.type, list(error.details))
    assert words in error.message


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("drain", {"agent": "reader", "reasn": "x"}, "reasn: Extra inputs are not permitted"),
        ("drain", {}, "agent: Field required"),
        ("set_limit", {"agent": "reader", "rate": -1}, "rate: Input should be greater than 0"),
        (
            "set_limit",
            {"agent": "reader", "mode": "x"},
            "mode: Input should be 'reject' or 'queue'",
        ),
        ("add_instance", {"agent": "reader", "url": "nonsense"}, "url: "),
    ],
)
async def test_what_does_not_fit_is_refused(
    client: Client, name: str, arguments: dict[str, Any], words: str
) -> None:
    """Each misfit by its field; the fleet goes on."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config(A))
        error = await refusal(client, name, arguments)
        await fleet.snapshot()
    assert "InvalidInput" == error.type
    assert words in error.message


async def test_refused_orders_leave_no_trace(client: Client) -> None:
    """Neither in what is known nor in the history."""
    async with fleet_of(client) as fleet:
        await fleet.ensure(config(A))
        await settled(fleet)
        before = await fleet.snapshot()
        await refusal(client, "drain", {"agent": "nobody"})
        after = await fleet.snapshot()
    assert before == after
