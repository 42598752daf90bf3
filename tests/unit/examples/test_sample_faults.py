"""Faults on request."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from examples.agents.app import create_app
from examples.agents.faults import Attempt, Delays, Fault

AGENT = "/testing_qa_agent"
PAYLOAD = {"assertions": [{"actual": 1, "operator": "equals", "expected": 1}]}


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a fresh application."""
    transport = httpx.ASGITransport(app=create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://agents") as client:
        yield client


async def call(
    client: httpx.AsyncClient,
    fault: dict[str, Any] | None = None,
    attempt: int = 1,
) -> httpx.Response:
    """Call the agent, with a fault if one is wished."""
    payload = PAYLOAD if fault is None else PAYLOAD | {"_fault": fault}
    headers = {"X-Attempt": str(attempt), "Idempotency-Key": "call-1"}
    return await client.post(f"{AGENT}/run", json=payload, headers=headers)


async def test_status_and_retry_after(client: httpx.AsyncClient) -> None:
    """A fault chooses the status and how long the caller shall wait."""
    response = await call(client, {"status": 429, "retry_after": 2})
    expected = (429, "2")
    assert expected == (response.status_code, response.headers["Retry-After"])


async def test_empty_fault_is_503(client: httpx.AsyncClient) -> None:
    """A fault that names no consequence makes the agent unavailable."""
    expected = 503
    assert expected == (await call(client, {})).status_code


async def test_times_fails_the_first_attempts(client: httpx.AsyncClient) -> None:
    """Attempts up to the number fail and later ones do not."""
    statuses = [(await call(client, {"times": 2}, attempt)).status_code for attempt in (1, 2, 3)]
    expected = [503, 503, 200]
    assert expected == statuses


async def test_delay_alone_still_answers(client: httpx.AsyncClient) -> None:
    """A slow agent is a working agent."""
    response = await call(client, {"delay": 0.01})
    expected = {"passed": 1, "failed": 0}
    assert expected == {k: response.json()[k] for k in ("passed", "failed")}


async def test_delay_spares_later_attempts() -> None:
    """With ``times`` an attempt past the number meets neither delay nor failure."""
    fault = Fault(delay=60, times=1)
    assert not fault.strikes(Attempt("call-1", 2))


async def test_closing_ends_a_delay() -> None:
    """A server that closes does not wait for its faults."""
    delays = Delays()
    delays.close()
    async with asyncio.timeout(1) as deadline:
        await delays.wait(60)
    assert not deadline.expired()


async def test_html_instead_of_json(client: httpx.AsyncClient) -> None:
    """A proxy's error page is one of the things that agents answer."""
    response = await call(client, {"body": "html", "status": 502})
    expected = (502, "text/html; charset=utf-8")
    assert expected == (response.status_code, response.headers["Content-Type"])


async def test_large_body(client: httpx.AsyncClient) -> None:
    """A large answer is valid JSON of 16 MiB."""
    response = await call(client, {"body": "large"})
    assert len(response.json()["filler"]) == 16 * 1024 * 1024


@pytest.mark.parametrize("status", [204, 304])
async def test_status_without_body(client: httpx.AsyncClient, status: int) -> None:
    """Statuses that forbid a body have none."""
    response = await call(client, {"status": status})
    assert (status, b"") == (response.status_code, response.content)


@pytest.mark.parametrize(
    "fault",
    [{"delay": 61}, {"status": 99}, {"failure_rate": 2}, {"body": "odd"}, {"typo": 1}, 5, None],
)
async def test_invalid_fault_is_422(client: httpx.AsyncClient, fault: Any) -> None:
    """A fault out of bounds or misspelt is refused, not ignored."""
    response = await client.post(f"{AGENT}/run", json=PAYLOAD | {"_fault": fault})
    expected = 422
    assert expected == response.status_code


async def test_standing_fault_lasts_until_cleared(client: httpx.AsyncClient) -> None:
    """A standing fault strikes every call of its agent until it is deleted."""
    await client.post(f"{AGENT}/_fault", json={"status": 500})
    during = (await call(client)).status_code
    cleared = (await client.delete(f"{AGENT}/_fault")).status_code
    expected = (500, 204, 200)
    assert expected == (during, cleared, (await call(client)).status_code)


async def test_standing_fault_leaves_other_agents_alone(client: httpx.AsyncClient) -> None:
    """Each agent has its own standing fault."""
    await client.post("/caching_agent/_fault", json={})
    expected = 200
    assert expected == (await call(client)).status_code


async def test_unhealthy_agent_still_works(client: httpx.AsyncClient) -> None:
    """Health can fail by itself."""
    await client.post(f"{AGENT}/_fault", json={"health": False})
    health = await client.get(f"{AGENT}/health")
    expected = (503, "unhealthy", 200)
    assert expected == (
        health.status_code,
        health.json()["status"],
        (await call(client)).status_code,
    )


async def test_invalid_standing_fault_is_422(client: httpx.AsyncClient) -> None:
    """A standing fault is checked when it is set."""
    response = await client.post(f"{AGENT}/_fault", json={"delay": -1})
    expected = (422, "delay: Input should be greater than or equal to 0")
    assert expected == (response.status_code, response.json()["detail"])


@given(key=st.text(), number=st.integers(0, 10**6))
def test_chance_is_from_0_to_below_1(key: str, number: int) -> None:
    """Every attempt has its fixed place between the bounds."""
    attempt = Attempt(key, number)
    assert 0 <= attempt.chance() == Attempt(key, number).chance() < 1


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (0.3, 300), (1.0, 1000)])
def test_failure_rate_is_met_on_average(rate: float, expected: int) -> None:
    """Of many calls about the wished share fails."""
    fault = Fault(failure_rate=rate)
    struck = sum(fault.strikes(Attempt(f"call-{number}", 1)) for number in range(1000))
    assert expected == pytest.approx(struck, abs=50 if 0 < rate < 1 else 0)


@given(st.floats(60.001, 1e6))
def test_no_delay_is_longer_than_a_minute(delay: float) -> None:
    """Nothing that is asked for is endless."""
    with pytest.raises(ValidationError):
        Fault(delay=delay)
