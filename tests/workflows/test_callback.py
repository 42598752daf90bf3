"""A callback's way through its whole schedule, and what ends it."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from activities.deliver_callback import CallbackSender
from orchestrator.addresses import ReceiverPolicy
from orchestrator.callbacks import (
    CALLBACK_QUEUE,
    CALLBACK_WORKFLOW,
    Callback,
    CallbackEnd,
    CallbackFilter,
    CallbackOrder,
    CallbackState,
    callback_workflow_id,
)
from orchestrator.config import Settings
from orchestrator.engine.callbacks import Callbacks, attributes_of, memo_of
from orchestrator.errors import CallbackNotFound
from orchestrator.receivers import Receivers
from orchestrator.routing import WORKFLOW_QUEUE
from orchestrator.signing import key_of
from orchestrator.transports.webhooks import Webhooks
from tests.support.agents import Agent, Reply
from tests.support.receivers import SECRET, verified
from tests.support.stack import eventually
from workflows.callback import DeliverCallback

DAY = 24 * 3600.0
QUICK = (0.05, 0.05)
HOST = "hooks.example"


@dataclass
class Names:
    """A resolver whose answers change: the last one stays."""

    answers: list[Sequence[str]] = field(default_factory=lambda: [["127.0.0.1"]])
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str, _: int) -> Sequence[str]:
        """The next answer."""
        self.asked.append(host)
        found = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


@dataclass
class Post:
    """A worker that delivers, and a receiver under a name."""

    client: Client
    receiver: Agent
    names: Names
    callbacks: Callbacks

    def callback(self, **fields: Any) -> Callback:
        """Of a task that nobody has run."""
        task_id = str(uuid4())
        given = {
            "callback_id": task_id,
            "url": f"http://{HOST}:{self.receiver.url.rpartition(':')[2]}/hook",
            "event": "task.completed",
            "at": datetime(2026, 1, 15, 10, 31, tzinfo=UTC),
            "data": {"task_id": task_id, "status": "completed", "result": {"n": 1}, "agent": "a"},
        }
        return Callback.model_validate(given | fields)

    async def start(self, callback: Callback) -> WorkflowHandle[Any, CallbackEnd]:
        """Begin its delivery."""
        return await self.client.start_workflow(
            CALLBACK_WORKFLOW,
            callback,
            id=callback_workflow_id(callback.callback_id),
            task_queue=WORKFLOW_QUEUE,
            memo=memo_of(callback),
            search_attributes=attributes_of(callback),
            result_type=CallbackEnd,
        )

    async def until(self, callback: Callback, state: CallbackState) -> Any:
        """The callback once it is so."""

        async def found() -> Any:
            detail = await self.callbacks.get(callback.callback_id)
            return detail if detail.status is state else None

        return await eventually(found, what=f"a callback that is {state}")


@asynccontextmanager
async def post(
    client: Client,
    *replies: Reply,
    delays: Sequence[float] = QUICK,
    allow: Sequence[str] = ("127.0.0.0/8",),
    names: Names | None = None,
) -> AsyncIterator[Post]:
    """Its parts, with the networks that may be called."""
    names = names or Names()
    receivers = Receivers(ReceiverPolicy(allow), names.resolve)
    sender = CallbackSender(Webhooks(receivers, 5), [key_of(SECRET)], delays)
    async with (
        Agent(*replies) as receiver,
        Worker(client, task_queue=CALLBACK_QUEUE, activities=[sender.deliver_callback]),
        Worker(
            client,
            task_queue=WORKFLOW_QUEUE,
            workflows=[DeliverCallback],
            workflow_runner=SandboxedWorkflowRunner(),
        ),
    ):
        yield Post(client, receiver, names, Callbacks(client, 5))


async def test_it_is_tried_for_more_than_a_day(skipping: Client) -> None:
    """By the usual schedule; each pause is longer by chance by a fifth at most."""
    delays = Settings().callbacks.retry_delays
    async with post(skipping, *[Reply(status=500)] * len(delays), Reply(), delays=delays) as stage:
        handle = await stage.start(stage.callback())
        end = await handle.result()
        described = await handle.describe()
    assert described.close_time is not None
    seconds = (described.close_time - described.start_time).total_seconds()
    assert DAY < sum(delays) <= seconds <= 1.2 * sum(delays) + 60
    assert end.delivered is not None
    assert len(delays) + 1 == end.delivered.attempts == len(stage.receiver.calls)
    assert 1 == len({verified(each).webhook_id for each in stage.receiver.calls})


@pytest.mark.parametrize(("asked", "waited"), [("7200", 7200), ("9999999", DAY / 2)])
async def test_a_receiver_says_when_to_come_again(
    skipping: Client, asked: str, waited: float
) -> None:
    """Retry-After counts, up to the longest pause of the schedule."""
    busy = Reply(status=429, headers={"Retry-After": asked})
    async with post(skipping, busy, Reply(), delays=(1, DAY / 2)) as stage:
        handle = await stage.start(stage.callback())
        await handle.result()
        described = await handle.describe()
    assert described.close_time is not None
    seconds = (described.close_time - described.start_time).total_seconds()
    assert waited <= seconds < waited + 60


async def test_a_dead_callback_waits_to_be_redelivered(client: Client) -> None:
    """It stays open, and is found as what it is; then it is delivered under its id."""
    async with post(client, *[Reply(status=500)] * 3, Reply()) as stage:
        callback = stage.callback()
        handle = await stage.start(callback)
        dead = await stage.until(callback, CallbackState.DEAD)

        async def listed() -> Any:
            chosen = CallbackFilter(status=CallbackState.DEAD, task_id=callback.task_id)
            return (await stage.callbacks.page(chosen, 10)).callbacks

        [item] = await eventually(listed)
        await stage.callbacks.redeliver(callback.callback_id, CallbackOrder(by="ops"))
        end = await handle.result()
        delivered = await stage.callbacks.get(callback.callback_id)
    assert ("CallbackExhausted", 3, 500) == (dead.error_type, dead.attempts, dead.status_code)
    assert "the receiver answered 500" == dead.error == item.error
    assert end.delivered is not None
    assert CallbackState.DELIVERED is delivered.status
    assert {callback.callback_id} == {verified(e).webhook_id for e in stage.receiver.calls}


async def test_one_that_pauses_can_be_delivered_now(client: Client) -> None:
    """Nobody has to wait for hours once the receiver is back."""
    async with post(client, Reply(status=500), Reply(), delays=(DAY,)) as stage:
        callback = stage.callback()
        handle = await stage.start(callback)

        async def paused() -> Any:
            return (await stage.callbacks.get(callback.callback_id)).next_attempt_at

        assert await eventually(paused)
        seen = await stage.callbacks.get(callback.callback_id)
        await stage.callbacks.redeliver(callback.callback_id, CallbackOrder())
        end = await handle.result()
    assert (1, 500, "the receiver answered 500") == (
        seen.attempts,
        seen.status_code,
        seen.last_error,
    )
    assert end.delivered is not None


async def test_one_that_was_delivered_can_be_again(client: Client) -> None:
    """The same message, for a receiver that has lost it."""
    async with post(client) as stage:
        callback = stage.callback()
        await (await stage.start(callback)).result()
        await stage.callbacks.redeliver(callback.callback_id, CallbackOrder())
        await stage.receiver.called(2)
        await stage.until(callback, CallbackState.DELIVERED)
    first, second = stage.receiver.calls
    assert verified(first) == verified(second)
    assert first.text == second.text


async def test_a_callback_can_be_given_up(client: Client) -> None:
    """Then nothing is sent any more, unless it is redelivered."""
    async with post(client, Reply(status=500), delays=(DAY,)) as stage:
        callback = stage.callback()
        handle = await stage.start(callback)
        await stage.receiver.called()
        await stage.callbacks.discard(callback.callback_id, CallbackOrder(reason="no use"))
        end = await handle.result()
        found = await stage.until(callback, CallbackState.DISCARDED)
        again = await stage.callbacks.discard(callback.callback_id, CallbackOrder())
    assert (None, "no use") == (end.delivered, end.reason)
    assert CallbackState.DISCARDED is again.status
    assert 1 == len(stage.receiver.calls)
    assert "no use" in (found.last_error or "")


async def test_a_name_that_leads_inside_by_now_is_not_called(client: Client) -> None:
    """It was public when the task was handed in; every address is looked at, at every attempt."""
    names = Names([["127.0.0.1"], ["127.0.0.1", "169.254.169.254"]])
    async with post(client, Reply(status=500), names=names) as stage:
        callback = stage.callback()
        await stage.start(callback)
        dead = await stage.until(callback, CallbackState.DEAD)
    assert ("CallbackRefused", 2) == (dead.error_type, dead.attempts)
    assert "169.254.169.254" in (dead.error or "")
    assert [HOST, HOST] == names.asked
    assert 1 == len(stage.receiver.calls)
    assert f"{HOST}:" in stage.receiver.calls[0].headers["Host"]


async def test_a_name_that_is_unknown_for_now_is_tried_again(client: Client) -> None:
    """DNS has its bad days."""
    async with post(client, names=Names([[], ["127.0.0.1"]])) as stage:
        end = await (await stage.start(stage.callback())).result()
    assert end.delivered is not None
    assert 2 == end.delivered.attempts


async def test_an_unknown_callback_is_not_found(client: Client) -> None:
    """Nor is the workflow of something else."""
    callbacks = Callbacks(client, 5)
    with pytest.raises(CallbackNotFound):
        await callbacks.get("nobody")
    with pytest.raises(CallbackNotFound):
        await callbacks.redeliver("nobody", CallbackOrder())
