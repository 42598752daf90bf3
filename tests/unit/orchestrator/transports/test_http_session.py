"""The one session: connections are reused and given back, nothing is kept or repeated."""

import asyncio

import pytest

from orchestrator.call_errors import AgentDisconnected, CallError
from tests.unit.orchestrator.transports.raw_agent import (
    DEADLINE_SECONDS,
    raw_agent,
    request,
    send,
    transport,
    whole,
)


async def test_connections_are_reused() -> None:
    """One call after another takes one connection."""
    async with raw_agent(whole("200 OK", b"{}"), keep_open=True) as agent, transport() as opened:
        for _ in range(5):
            await opened.send(request(agent.url))
    assert (1, 5) == (agent.connections, len(agent.requests))


async def test_a_refused_call_leaves_its_connection_usable() -> None:
    """A short error page is read to its end."""
    async with raw_agent(whole("500 No", b"{}"), keep_open=True) as agent, transport() as opened:
        for _ in range(3):
            with pytest.raises(CallError):
                await opened.send(request(agent.url))
    assert (1, 3) == (agent.connections, len(agent.requests))


async def test_many_calls_run_at_once() -> None:
    """The session is no bottleneck: a hundred calls are in flight together."""
    everybody = asyncio.Barrier(100)

    async def together(writer: asyncio.StreamWriter) -> None:
        await everybody.wait()
        writer.write(whole("200 OK", b"{}"))

    async with raw_agent(together) as agent, transport() as opened, asyncio.timeout(30):
        await asyncio.gather(*(opened.send(request(agent.url)) for _ in range(100)))
    assert 100 == agent.connections


async def test_cancelling_closes_the_connection() -> None:
    """The agent learns at once that nobody waits any more."""
    async with raw_agent(b"", keep_open=True) as agent, transport() as opened:
        call = asyncio.create_task(opened.send(request(agent.url)))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await agent.heard.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await agent.left.wait()


async def test_cookies_are_not_kept() -> None:
    """What one task's answer sets does not travel with the next task."""
    answer = whole("200 OK", b"{}", "Set-Cookie: session=1; Path=/")
    async with raw_agent(answer, keep_open=True) as agent, transport() as opened:
        for _ in range(2):
            await opened.send(request(agent.url))
    assert not any(b"cookie" in head.lower() for head in agent.requests)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent is called directly."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with raw_agent(whole("200 OK", b"{}")) as agent:
        assert 200 == (await send(agent.url)).status


async def test_a_stale_connection_is_not_retried_behind_our_back() -> None:
    """A POST on a connection that the agent has just closed is ours to repeat, not the client's."""

    async def once(writer: asyncio.StreamWriter) -> None:
        if len(agent.requests) == 1:
            writer.write(whole("200 OK", b"{}"))
        else:
            writer.transport.abort()

    async with raw_agent(once, keep_open=True) as agent, transport() as opened:
        await opened.send(request(agent.url))
        with pytest.raises(AgentDisconnected):
            await opened.send(request(agent.url))
    assert 2 == len(agent.requests)


async def test_a_closed_transport_opens_again() -> None:
    """Closing twice, or closing one that was never used, is no error."""
    async with raw_agent(whole("200 OK", b"{}")) as agent, transport() as opened:
        await opened.close()
        await opened.send(request(agent.url))
        await opened.close()
        await opened.close()
    assert 1 == len(agent.requests)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (whole("200 OK", b"fine"), None),
        (whole("204 No Content"), None),
        (whole("503 Busy"), "answered 503"),
        (whole("302 Found", b"", "Location: http://127.0.0.1:1/"), "answered 302"),
    ],
)
async def test_a_probe_asks_for_2xx(answer: bytes, expected: str | None) -> None:
    """A health check says nothing when all is well; a redirect is not well."""
    async with raw_agent(answer) as agent, transport() as opened:
        assert expected == await opened.probe(agent.url, 10)


async def test_a_probe_times_out() -> None:
    """An agent that does not answer is not healthy."""
    async with raw_agent(b"", keep_open=True) as agent, transport() as opened:
        assert "no answer within 0.2 s" == await opened.probe(agent.url, 0.2)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://a..b/", "http://[::1/", "nowhere", "http://x.invalid/"]
)
async def test_a_probe_always_answers(url: str) -> None:
    """No address makes it raise, or other agents' checks would end with it."""
    async with transport() as opened:
        assert await opened.probe(url, 5)
