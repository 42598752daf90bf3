"""Orders to cancel many tasks, where the engine refuses them or knows others of the same id."""

from uuid import uuid4

import pytest
from temporalio.client import Client

from orchestrator.cancellations import CancellationFilter, job_id
from orchestrator.engine.cancellations import Cancellations
from orchestrator.errors import CancellationNotFound, OrderRefused
from orchestrator.routing import WORKFLOW_QUEUE

RPC_SECONDS = 5.0
FAR_MORE_THAN_MAY = 300


async def test_the_engine_carries_out_only_so_many_orders_at_a_time(client: Client) -> None:
    """Then it says how to see them, and when to come again."""
    orders = Cancellations(client, RPC_SECONDS)
    nobody = CancellationFilter(tenant=str(uuid4()))

    async def order_many() -> None:
        for _ in range(FAR_MORE_THAN_MAY):
            await orders.start(str(uuid4()), nobody, "", "tests", 0)

    with pytest.raises(OrderRefused, match="temporal batch list") as caught:
        await order_many()
    assert "conflict" == caught.value.kind


async def test_what_is_no_order_to_cancel_is_not_known(client: Client) -> None:
    """The engine describes any workflow as if it were one."""
    order_id = str(uuid4())
    handle = await client.start_workflow(
        "Something", id=job_id(order_id), task_queue=f"nobody-{WORKFLOW_QUEUE}"
    )
    orders = Cancellations(client, RPC_SECONDS)
    with pytest.raises(CancellationNotFound):
        await orders.status(order_id)
    with pytest.raises(CancellationNotFound):
        await orders.stop(order_id)
    await handle.terminate()
