"""What is known of receivers when a task is handed in."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.addresses import ReceiverPolicy, ReceiverRefused
from orchestrator.config import Settings
from orchestrator.errors import CallbackRefused
from orchestrator.receivers import Receivers, SubmissionGuard, by_system


class Names:
    """A resolver that counts."""

    def __init__(self, **known: Sequence[str]) -> None:
        self.known = known
        self.asked: list[str] = []

    async def resolve(self, host: str, _: int) -> Sequence[str]:
        """Its addresses."""
        self.asked.append(host)
        label = host.partition(".")[0]
        if label == "slow":
            await asyncio.Event().wait()
        if label not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.known[label]


def guard(names: Names, **options: Any) -> SubmissionGuard:
    """For receivers by these names."""
    return SubmissionGuard(Receivers(ReceiverPolicy(), names.resolve), **options)


async def test_a_name_that_leads_inside_is_refused() -> None:
    """If one of its addresses does."""
    names = Names(mixed=["8.8.8.8", "10.0.0.1"])
    with pytest.raises(CallbackRefused, match=r"callback_url: leads to 'mixed.example' \(10.0.0.1"):
        await guard(names).check("https://mixed.example/hook")


async def test_a_public_name_is_taken() -> None:
    """As it is now."""
    await guard(Names(good=["8.8.8.8", "2a00:1450:4001:81b::200e"])).check("https://good.example/")


async def test_a_name_that_is_not_found_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked up when it is called: a task need not wait for DNS."""
    monkeypatch.setattr("orchestrator.receivers.LOOKUP_SECONDS", 0.01)
    await guard(Names()).check("https://unknown.example/")
    await guard(Names()).check("https://slow.example/")


async def test_a_host_is_looked_up_once_in_a_while() -> None:
    """However many tasks name it."""
    times = iter((0.0, 5.0, 30.0))
    names = Names(good=["8.8.8.8"])
    watched = guard(names, clock=lambda: next(times))
    for _ in range(3):
        await watched.check("https://good.example/a")
    assert 2 == len(names.asked)


async def test_of_a_batch_each_host_is_looked_up_once() -> None:
    """And the first item that is wrong is named."""
    names = Names(good=["8.8.8.8"], bad=["127.0.0.1"])
    watched = guard(names)
    urls = ["https://good.example/1", "https://good.example/2", "https://bad.example/"]
    with pytest.raises(CallbackRefused, match="item 2: callback_url: leads to"):
        await watched.check_all((n, watched.read(url)) for n, url in enumerate(urls))
    assert ["bad.example", "good.example"] == sorted(names.asked)


async def test_without_a_secret_no_callback_is_taken() -> None:
    """Where there is an engine for several machines; an embedded one makes a secret."""
    settings = Settings.model_validate({"temporal": {"address": "engine:7233"}})
    with pytest.raises(CallbackRefused, match=r"no callbacks\.secret is configured"):
        await SubmissionGuard.of(settings).check("https://8.8.8.8/")
    SubmissionGuard.of(Settings()).read("https://8.8.8.8/")


async def test_the_system_knows_this_machine() -> None:
    """So names are really resolved."""
    assert "127.0.0.1" in await by_system("localhost", 80)


async def test_a_name_without_addresses_is_unknown() -> None:
    """An empty answer is none."""
    receivers = Receivers(ReceiverPolicy(), Names(empty=[]).resolve)
    with pytest.raises(OSError, match="no address"):
        await receivers.addresses(receivers.read("https://empty.example/"))
    with pytest.raises(ReceiverRefused):
        receivers.read("https://127.0.0.1/")
