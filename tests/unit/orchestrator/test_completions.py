"""Completion URLs: what they say, who can make them, and where their secret comes from."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from orchestrator.completions import CompletionUrls, Ticket, new_answer_id
from orchestrator.config import (
    Agent,
    AgentIdentity,
    Completions,
    Instance,
    Rule,
    Settings,
    Storage,
    Temporal,
)
from orchestrator.errors import CompletionUnknown, StartupError
from orchestrator.parts import completion_urls

URLS = CompletionUrls("https://tasks.example/api/", b"a secret of the tests")
EXPIRES = datetime(2030, 1, 1, tzinfo=UTC)


def token_of(url: str) -> str:
    """The last part of a completion URL."""
    return url.rpartition("/")[2]


@given(task_id=st.text(min_size=1, max_size=100), agent=st.from_regex(r"[a-z0-9][a-z.0-9]*\Z"))
def test_a_url_says_whose_answer_it_takes(task_id: str, agent: str) -> None:
    """Reading its token brings back task, attempt and, within a second, the time."""
    ticket = Ticket(task_id, new_answer_id(agent, 3), EXPIRES)
    url = URLS.url(ticket)
    assert url.startswith("https://tasks.example/api/completions/")
    found = URLS.read(token_of(url))
    assert (found.task_id, found.answer_id, found.attempt) == (
        task_id,
        ticket.answer_id,
        (agent, 3),
    )
    assert found.expires - EXPIRES == timedelta(seconds=1)


@given(token=st.text(max_size=200))
def test_what_was_not_signed_is_not_known(token: str) -> None:
    """Whatever text it is."""
    with pytest.raises(CompletionUnknown):
        URLS.read(token)


@given(data=st.data())
def test_a_url_that_was_changed_is_not_known(data: st.DataObject) -> None:
    """Not one character of it."""
    token = token_of(URLS.url(Ticket("task", new_answer_id("agent", 1), EXPIRES)))
    start = data.draw(st.integers(0, len(token) - 1))
    end = data.draw(st.integers(start, min(len(token), start + 3)))
    changed = token[:start] + data.draw(st.text(max_size=3)) + token[end:]
    if changed != token:
        with pytest.raises(CompletionUnknown):
            URLS.read(changed)


def test_another_secret_signs_other_urls() -> None:
    """A token of one installation is unknown to another."""
    url = URLS.url(Ticket("task", new_answer_id("agent", 1), EXPIRES))
    with pytest.raises(CompletionUnknown):
        CompletionUrls("https://tasks.example", b"another secret").read(token_of(url))


def test_a_url_that_was_signed_by_hmac_is_still_known() -> None:
    """As versions before did; an agent may hold it for days."""
    body = "WyJ0YXNrIiwiYWdlbnQuMS4wMTIzNDU2Nzg5YWJjZGVmIiw0MDAwMDAwMDAwXQ"
    ticket = URLS.read(f"{body}.OmPXv9V7NEEkGnGqM2EYWVfQEyVDuaKvLEI4AfdNxn0")
    assert ("task", ("agent", 1)) == (ticket.task_id, ticket.attempt)


def test_no_two_answers_are_called_the_same() -> None:
    """Nor those to the same attempt, of another run."""
    assert new_answer_id("agent", 1) != new_answer_id("agent", 1)


def test_beside_the_embedded_engine_the_secret_is_made_once(tmp_path: Path) -> None:
    """All processes find the same in the data directory, readable by the user alone."""
    settings = Settings(storage=Storage(data_dir=tmp_path / "data"))
    first, second = completion_urls(settings), completion_urls(settings)
    assert first is not None
    assert second is not None
    url = first.url(Ticket("task", new_answer_id("agent", 1), EXPIRES))
    assert url.startswith("http://127.0.0.1:8000/completions/")
    assert second.read(token_of(url)).task_id == "task"
    [kept] = (tmp_path / "data").iterdir()
    assert (kept.name, stat.S_IMODE(kept.stat().st_mode)) == ("completions.key", 0o600)


def test_a_secret_that_cannot_be_kept_stops_the_start(tmp_path: Path) -> None:
    """The error names the file and the way out."""
    (tmp_path / "data").write_text("a file")
    settings = Settings(storage=Storage(data_dir=tmp_path / "data"))
    with pytest.raises(StartupError, match=r"completions.key.*set completions.secret"):
        completion_urls(settings)


CLUSTER = Temporal(address="temporal.example:7233")


def test_a_cluster_needs_a_secret_for_rules_that_ask_for_it() -> None:
    """The error names the rule and the key."""
    rule = Rule(pattern="scan", target_agent="a", endpoint="/scan", answer_timeout=60)
    agents = {"a": Agent(instances=(Instance(url="http://a"),))}
    with pytest.raises(StartupError, match=r"'scan'.*completions.secret"):
        completion_urls(Settings(temporal=CLUSTER, agents=agents, routing_rules=(rule,)))


def test_without_a_secret_a_clusters_calls_carry_no_url() -> None:
    """Where no rule asks for late answers there are none."""
    assert completion_urls(Settings(temporal=CLUSTER)) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [("0.0.0.0", "http://127.0.0.1:8000/"), ("::1", "http://[::1]:8000/")],  # noqa: S104 - a setting
)
def test_the_apis_own_address_stands_in_for_a_public_one(host: str, expected: str) -> None:
    """An address of all interfaces stands for this machine."""
    settings = Settings(
        agent=AgentIdentity(host=host), completions=Completions(secret=SecretStr("x" * 16))
    )
    urls = completion_urls(settings)
    assert urls is not None
    ticket = Ticket("task", new_answer_id("agent", 1), EXPIRES)
    assert urls.url(ticket).startswith(expected + "completions/")
