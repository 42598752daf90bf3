"""Both clients, against a real HTTP server."""

import inspect
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import client as package
from orchestrator.client import (
    ApiUnreachable,
    AsyncOrchestratorClient,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    OrchestratorClient,
    RateLimited,
    StillOpen,
    Unavailable,
    UnexpectedAnswer,
)
from orchestrator.client.attempts import pause_after
from orchestrator.models import TaskRequest, TaskState
from tests.support.api import Answer, ScriptedApi, batch, problem, scripted, task
from tests.support.stack import free_port


def client(api: ScriptedApi, retry_for: float = 20) -> OrchestratorClient:
    """One that gives up after a while."""
    return OrchestratorClient(api.url, timeout=5, retry_for=retry_for)


def test_a_task_is_submitted_with_what_was_given_and_a_key() -> None:
    """What was not given is not sent; the key is made."""
    with scripted(Answer(202, task("queued"))) as api, client(api) as mine:
        found = mine.submit("upload_pdf", {"file": "ä.pdf"}, priority=5, wait=3)
    [heard] = api.heard
    assert TaskState.QUEUED is found.status
    assert ("POST", "/orchestrate", "wait=3") == (
        heard.method,
        heard.path,
        heard.headers["prefer"],
    )
    body = {"payload": {"file": "ä.pdf"}, "pattern": "upload_pdf", "priority": 5}
    assert body == heard.json
    assert 4 == uuid.UUID(heard.headers["idempotency-key"]).version


def test_a_whole_request_is_submitted_as_it_is() -> None:
    """Without what it leaves open, and without fields beside it."""
    request = TaskRequest(pattern="p", payload={"a": 1}, tenant="acme")
    with scripted(Answer(202, task("queued"))) as api, client(api) as mine:
        mine.submit(request, idempotency_key="mine")
        with pytest.raises(TypeError, match="no fields beside it"):
            mine.submit(request, priority=1)
    assert {"pattern": "p", "payload": {"a": 1}, "tenant": "acme"} == api.heard[0].json
    assert "mine" == api.heard[0].headers["idempotency-key"]


@pytest.mark.parametrize(
    "first",
    [
        problem(503, "The engine is away", "0"),
        problem(429, "Rate limit exceeded", "0"),
        Answer(502, b"<html>bad gateway</html>", {"Content-Type": "text/html"}),
        Answer(200, {}, cut=True),
    ],
)
def test_a_submission_is_sent_again_with_the_same_key(first: Answer) -> None:
    """After refusals that pass, and after an answer that was lost."""
    with scripted(first, Answer(202, task("queued"))) as api, client(api) as mine:
        mine.submit("p", {})
    one, two = api.heard
    assert one.headers["idempotency-key"] == two.headers["idempotency-key"]
    assert one.body == two.body


def test_without_a_key_only_what_was_not_done_is_sent_again() -> None:
    """A lost answer is an error then."""
    with (
        scripted(problem(429, "Slower", "0"), Answer(200, {}, cut=True)) as api,
        client(api) as mine,
        pytest.raises(ApiUnreachable),
    ):
        mine.submit("p", {}, idempotency_key=False)
    assert [None, None] == [each.headers.get("idempotency-key") for each in api.heard]


def test_a_pause_beyond_the_patience_is_not_begun() -> None:
    """The refusal comes at once, with the seconds that the API asked for."""
    with (
        scripted(problem(503, "Agent 'x' is currently unavailable", "30")) as api,
        client(api, retry_for=5) as mine,
        pytest.raises(Unavailable) as caught,
    ):
        mine.submit("p", {})
    assert (1, 503, 30.0) == (len(api.heard), caught.value.status, caught.value.retry_after)
    assert "Agent 'x' is currently unavailable" == str(caught.value)


@pytest.mark.parametrize("told", [None, 0.0, 0.01])
def test_who_is_told_to_come_at_once_comes_less_and_less_often(told: float | None) -> None:
    """As without a word: an API that answers so does not get all of a client's requests at once."""
    error = Unavailable(503, "later", told)
    pauses = [pause_after(error, attempt) for attempt in (0, 2, 100)]
    for longest, seconds in zip((0.25, 1, 10), pauses, strict=True):
        assert longest / 2 <= seconds <= longest


def test_a_pause_is_as_long_as_the_api_says() -> None:
    """However often it was tried."""
    assert {1.0} == {pause_after(Unavailable(503, "later", 1.0), attempt) for attempt in (0, 100)}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, NotAllowed),
        (404, NotFound),
        (409, Conflict),
        (422, InvalidRequest),
        (429, RateLimited),
        (503, Unavailable),
    ],
)
def test_problems_are_typed(status: int, kind: type[Exception]) -> None:
    """By their status, with what the document says beside."""
    with (
        scripted(problem(status, "why", errors=[{"field": "a"}])) as api,
        client(api, retry_for=0) as mine,
        pytest.raises(kind) as caught,
    ):
        mine.status("t/1")
    error = caught.value
    assert isinstance(error, package.ApiError)
    assert ("why", [{"field": "a"}]) == (error.detail, error.problem["errors"])
    assert "/status/t%2F1" == api.heard[0].path


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"<h1>nginx</h1>", {"Content-Type": "text/html"}),
        Answer(200, b"<h1>welcome</h1>", {"Content-Type": "text/html"}),
        Answer(200, {"hello": "world"}),
        Answer(301, b"", {"Location": "https://elsewhere.example/"}),
    ],
)
def test_what_is_not_this_api_is_said_so(answer: Answer) -> None:
    """With where it was asked, and no traceback of a parser."""
    with (
        scripted(answer) as api,
        client(api) as mine,
        pytest.raises(UnexpectedAnswer, match="is the URL right") as caught,
    ):
        mine.status("t")
    assert api.url in str(caught.value)


def test_nobody_there_is_said_with_the_address() -> None:
    """After the patience is over."""
    port = free_port()
    with (
        OrchestratorClient(f"http://127.0.0.1:{port}", retry_for=0) as mine,
        pytest.raises(ApiUnreachable, match=f"127.0.0.1:{port}"),
    ):
        mine.status("t")


def test_fields_of_a_newer_api_are_passed_over() -> None:
    """At every depth, so that the server may be renewed first."""
    attempt = {
        "attempt": 1,
        "agent": "a",
        "instance": None,
        "outcome": "success",
        "seconds": 1,
        "new": 1,
    }
    answer = Answer(200, task(new_field=1, attempt_history=[attempt], result=None))
    with scripted(answer) as api, client(api) as mine:
        found = mine.status("t-1")
    assert found.attempt_history is not None
    assert "success" == found.attempt_history[0].outcome


def test_an_end_is_waited_for() -> None:
    """By long requests, one after the other."""
    answers = (Answer(200, task("running")), Answer(200, task(result={"n": 1})))
    with scripted(*answers) as api, client(api) as mine:
        found = mine.wait("t-1")
    assert {"n": 1} == found.result
    assert ["wait=30", "wait=30"] == [each.headers["prefer"] for each in api.heard]


def test_a_wait_has_an_end() -> None:
    """With the status that there was last."""
    with (
        scripted(Answer(200, task("running"))) as api,
        client(api) as mine,
        pytest.raises(StillOpen) as caught,
    ):
        mine.wait("t-1", timeout=0)
    assert TaskState.RUNNING is caught.value.last.status


def test_a_batch_travels_as_lines() -> None:
    """One task each, whatever they are made of."""
    tasks: list[Any] = [TaskRequest(pattern="p", payload={}), {"pattern": "q", "payload": {}}]
    with scripted(Answer(202, batch("queued"))) as api, client(api) as mine:
        found = mine.batch(tasks, partial=True)
    [heard] = api.heard
    assert "b-1" == found.batch_id
    assert ("/orchestrate/batch?partial=true", "application/x-ndjson") == (
        heard.path,
        heard.headers["content-type"],
    )
    assert [b'{"pattern":"p","payload":{}}', b'{"pattern":"q","payload":{}}'] == (
        heard.body.splitlines()
    )


def test_results_are_read_page_by_page() -> None:
    """Lines end where lines end, not at other characters that look like it."""
    line = '{"task_id": "a\u2028b", "status": "completed", "created_at": "2026-01-15T10:30:00Z", '
    text = (line + '"updated_at": "2026-01-15T10:30:00Z"}\n').encode()
    answers = (Answer(200, text * 2, {"X-Next-Cursor": "c 1"}), Answer(200, text))
    with scripted(*answers) as api, client(api) as mine:
        found = list(mine.results("b-1", status="completed"))
    assert ["a\u2028b"] * 3 == [each.task_id for each in found]
    assert ["/batches/b-1/results?status=completed", True] == [
        api.heard[0].path,
        api.heard[1].path.endswith("cursor=c+1") or api.heard[1].path.endswith("cursor=c%201"),
    ]


def test_tasks_are_read_page_by_page() -> None:
    """With the filters each time."""
    answers = (
        Answer(200, {"tasks": [task()], "next_cursor": "c"}),
        Answer(200, {"tasks": [], "next_cursor": None}),
    )
    with scripted(*answers) as api, client(api) as mine:
        assert 1 == len(list(mine.tasks(agent="a")))
    assert ["/tasks?agent=a&limit=200", "/tasks?agent=a&limit=200&cursor=c"] == [
        each.path for each in api.heard
    ]


@pytest.mark.parametrize(
    "order",
    [
        lambda mine: mine.resolve_many("discard", agent="a", batch="", tenant=None),
        lambda mine: mine.count_dead_letters(agent="a", batch=""),
        lambda mine: mine.cancel_many(agent="a", batch=""),
        lambda mine: mine.count_cancellable(agent="a", batch=""),
    ],
)
def test_an_empty_filter_is_left_to_the_api_to_refuse(
    order: Callable[[OrchestratorClient], object],
) -> None:
    """Left out it would select more than was meant."""
    with (
        scripted(problem(422, "batch: too short")) as api,
        client(api) as mine,
        pytest.raises(InvalidRequest, match="batch"),
    ):
        order(mine)
    assert {"agent": "a", "batch": ""} == api.heard[0].json["filter"]


def test_an_unhealthy_api_is_an_answer() -> None:
    """No error, and nothing to be sent again."""
    health = {
        "status": "unhealthy",
        "timestamp": "2026-01-15T10:30:00Z",
        "version": "1",
        "agents_healthy": 0,
        "agents_total": 1,
        "active_tasks": 0,
        "queue_size": 0,
    }
    with scripted(Answer(503, health)) as api, client(api) as mine:
        assert "unhealthy" == mine.health().status
    assert 1 == len(api.heard)


def test_url_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the command line."""
    with scripted(Answer(200, task())) as api:
        monkeypatch.setenv("ORCHESTRATOR_URL", f"{api.url}/")
        monkeypatch.setenv("ORCHESTRATOR_API_KEY", "k-1")
        with OrchestratorClient() as mine:
            mine.status("t")
    assert "Bearer k-1" == api.heard[0].headers["authorization"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "/status"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="is not the URL of an API"):
        OrchestratorClient(url)


async def test_the_same_by_asyncio() -> None:
    """Submit, send again, wait, and page."""
    answers = (
        problem(503, "later", "0"),
        Answer(202, task("queued")),
        Answer(200, task(result=1)),
        Answer(200, {"tasks": [task()], "next_cursor": None}),
    )
    with scripted(*answers) as api:
        async with AsyncOrchestratorClient(api.url) as mine:
            submitted = await mine.submit("p", {})
            found = await mine.wait(submitted.task_id, timeout=5)
            listed = [each async for each in mine.tasks()]
    assert (1, 1) == (found.result, len(listed))


async def test_one_name_serves_both_worlds() -> None:
    """``async with OrchestratorClient`` gives the client for asyncio, with the same options."""
    with scripted(Answer(200, task())) as api:
        async with OrchestratorClient(api.url, api_key="k") as mine:
            assert TaskState.COMPLETED is (await mine.status("t")).status
    assert "Bearer k" == api.heard[0].headers["authorization"]


def test_both_clients_have_the_same_methods() -> None:
    """With the same parameters, and an explanation each."""

    def methods(kind: type) -> dict[str, Any]:
        found: dict[str, Callable[..., Any]] = {
            name: each for name, each in vars(kind).items() if not name.startswith("_")
        }
        assert all(each.__doc__ for each in found.values())
        return {name: list(inspect.signature(each).parameters) for name, each in found.items()}

    assert methods(OrchestratorClient) == methods(AsyncOrchestratorClient)
    assert "payload" in methods(OrchestratorClient)["submit"]


def test_the_import_is_a_light_one() -> None:
    """Users import it into their own applications: no engine, no web framework."""
    words = "import sys, orchestrator.client; print([m for m in sys.modules if m in %r])"
    heavy = ("temporalio", "fastapi", "starlette", "aiohttp", "structlog", "yaml")
    result = subprocess.run(
        [sys.executable, "-c", words % (heavy,)], capture_output=True, text=True, check=True
    )
    assert "[]\n" == result.stdout
