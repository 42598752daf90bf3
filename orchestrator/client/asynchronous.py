"""The client for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from orchestrator.client import joint, steering, submission
from orchestrator.client.attempts import Pause, Result, Terms, steps
from orchestrator.client.calls import Call, Pages, path_of
from orchestrator.client.connection import (
    DEFAULT_RETRY_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    STREAM_ERRORS,
    arguments_of,
    made_of,
    options_of,
)
from orchestrator.client.events import Event, Following, is_stream

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
Item = TypeVar("Item")


def _answered(
    build: Callable[Given, Call[Answer]],
) -> Callable[Concatenate["AsyncOrchestratorClient", Given], Coroutine[Any, Any, Answer]]:
    """The method that sends a call."""

    async def method(
        self: "AsyncOrchestratorClient", /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Answer:
        return await self._send(build(*args, **kwargs))

    made_of(method, build)
    return method


def _listed(
    build: Callable[Given, Pages[Item]],
) -> Callable[Concatenate["AsyncOrchestratorClient", Given], AsyncIterator[Item]]:
    """The method that reads a list page by page."""

    def method(
        self: "AsyncOrchestratorClient", /, *args: Given.args, **kwargs: Given.kwargs
    ) -> AsyncIterator[Item]:
        return self._each(build(*args, **kwargs))

    made_of(method, build)
    return method


class AsyncOrchestratorClient:
    """A client of the API for asyncio: an async context manager.

    Args:
        url: of the API. [default: $ORCHESTRATOR_URL, http://127.0.0.1:8000]
        api_key: [default: $ORCHESTRATOR_API_KEY, none]
        timeout: seconds that one answer may take, beside what the API was asked to wait.
        retry_for: seconds for which a request that failed is sent again, if that is safe; 0: never.
        options: others of httpx.AsyncClient, such as ``verify`` and ``proxy``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retry_for: float = DEFAULT_RETRY_SECONDS,
        **options: Any,
    ) -> None:
        self._terms = Terms(timeout, retry_for)
        self._http = httpx.AsyncClient(**options_of(url, api_key, options))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def _send(self, call: Call[Answer]) -> Answer:
        work, result = steps(call, self._terms), None
        while True:
            try:
                step = work.send(result)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            result = await self._do(step)

    async def _do(self, step: Call[Any] | Pause) -> Result:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(**arguments_of(step, self._terms))
        except httpx.RequestError as error:
            return error

    async def _each(self, pages: Pages[Item]) -> AsyncIterator[Item]:
        items, cursor = await self._send(pages.page(None))
        while True:
            for item in items:
                yield item
            if cursor is None:
                return
            items, cursor = await self._send(pages.page(cursor))

    async def _follow(self, path: str, last_event_id: str) -> AsyncIterator[Event]:
        following = Following(path, last_event_id, self._terms)
        while True:
            broke: Exception | None = None
            try:
                arguments = arguments_of(following.call(), self._terms)
                async with self._http.stream(**arguments) as response:
                    if not is_stream(response):
                        await response.aread()
                    if not following.accepts(response):
                        return
                    async for content in response.aiter_bytes():
                        for event in following.feed(content):
                            yield event
            except STREAM_ERRORS as error:
                broke = error
            await asyncio.sleep(following.pause(broke))

    def events(self, task_id: str, *, last_event_id: str = "") -> AsyncIterator[Event]:
        """What happens to a task, until it has ended; a broken connection is taken up again."""
        return self._follow(path_of("status", task_id, "events"), last_event_id)

    def batch_events(self, batch_id: str, *, last_event_id: str = "") -> AsyncIterator[Event]:
        """What happens to a batch, until it has ended."""
        return self._follow(path_of("batches", batch_id, "events"), last_event_id)

    def aggregate_events(
        self, aggregate_id: str, *, last_event_id: str = ""
    ) -> AsyncIterator[Event]:
        """What happens to an aggregate, until it has ended."""
        return self._follow(path_of("aggregate", aggregate_id, "events"), last_event_id)

    submit = _answered(submission.submit)
    dry_run = _answered(submission.dry_run)
    status = _answered(submission.status)
    wait = _answered(submission.wait)
    cancel = _answered(submission.cancel)
    cancel_many = _answered(submission.cancel_many)
    count_cancellable = _answered(submission.count_cancellable)
    cancellation = _answered(submission.cancellation)
    stop_cancellation = _answered(submission.stop_cancellation)
    change_priority = _answered(submission.change_priority)
    batch = _answered(joint.batch)
    batch_dry_run = _answered(joint.batch_dry_run)
    batch_status = _answered(joint.batch_status)
    wait_batch = _answered(joint.wait_batch)
    cancel_batch = _answered(joint.cancel_batch)
    redrive_batch = _answered(joint.redrive_batch)
    aggregate = _answered(joint.aggregate)
    aggregate_status = _answered(joint.aggregate_status)
    wait_aggregate = _answered(joint.wait_aggregate)
    cancel_aggregate = _answered(joint.cancel_aggregate)
    redrive_aggregate = _answered(joint.redrive_aggregate)
    task_page = _answered(submission.task_page)
    tasks = _listed(submission.tasks)
    batches = _listed(joint.batches)
    results = _listed(joint.results)
    agents = _answered(steering.agents)
    agent = _answered(steering.agent)
    agent_events = _answered(steering.agent_events)
    drain = _answered(steering.drain)
    resume = _answered(steering.resume)
    trip = _answered(steering.trip)
    reset = _answered(steering.reset)
    disable_breaker = _answered(steering.disable_breaker)
    limit = _answered(steering.limit)
    add_instance = _answered(steering.add_instance)
    remove_instance = _answered(steering.remove_instance)
    dead_letter_page = _answered(steering.dead_letter_page)
    dead_letter = _answered(steering.dead_letter)
    redrive = _answered(steering.redrive)
    discard = _answered(steering.discard)
    resolve_many = _answered(steering.resolve_many)
    count_dead_letters = _answered(steering.count_dead_letters)
    redrive_status = _answered(steering.redrive_status)
    cancel_redrive = _answered(steering.cancel_redrive)
    health = _answered(steering.health)
    metrics = _answered(steering.metrics)
    dead_letters = _listed(steering.dead_letters)
