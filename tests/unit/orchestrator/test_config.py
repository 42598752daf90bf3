"""The rules of single values."""

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from orchestrator.config import Agent, Instance, Rule, Settings, Temporal
from orchestrator.endpoints import origin

RULE = {"pattern": "p", "target_agent": "reader", "endpoint": "/x"}


@pytest.mark.parametrize(
    "url", ["http://h", "https://h:1", "http://[::1]:80", "http://10.0.0.1:1/prefix", "HTTP://h"]
)
def test_addresses_of_instances(url: str) -> None:
    """An instance is an http or https URL, with or without a prefix."""
    assert url == Instance(url=url).url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:1",
        "ftp://h",
        "http://",
        "http:///x",
        "http://h:99999",
        "http://h:x",
        "http://[::1",
        "http://me:secret@h",
        "http://me@h",
        "http://h?x=1",
        "http://h#x",
        "http://h h",
        "http://h\n:1",
        "http://h/\x00",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_address(url: str) -> None:
    """Other schemes, credentials, queries, blanks and bad ports are refused."""
    with pytest.raises(ValidationError):
        Instance(url=url)


def test_an_instances_last_slash_goes() -> None:
    """Paths are joined to it, so it ends without one."""
    assert "http://h/prefix" == Instance(url="http://h/prefix/").url


@pytest.mark.parametrize(
    "endpoint", ["/", "/ingest", "/ingest/", "/ingest?mode=fast", "http://h:1/ingest/", "https://h"]
)
def test_endpoints_are_kept_as_they_are(endpoint: str) -> None:
    """A path or a whole URL; its last slash means something to the agent."""
    assert endpoint == Rule.model_validate(RULE | {"endpoint": endpoint}).endpoint


@pytest.mark.parametrize(
    "endpoint", ["", "ingest", "//h/x", "/a b", "/a\nb", "/a#b", "ftp://h/x", "http://h/a b"]
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    """Relative paths, other hosts in disguise, blanks and fragments are refused."""
    with pytest.raises(ValidationError):
        Rule.model_validate(RULE | {"endpoint": endpoint})


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("inf")},
        {"timeout": "30"},
        {"timeout": 30 * 24 * 3600 + 1},
        {"priority": 0},
        {"priority": 6},
        {"priority": True},
        {"priority": 2.0},
        {"target_agent": ".hidden"},
        {"target_agent": "a/b"},
        {"pattern": ""},
        {"pattern": "x" * 201},
        {"match": "fuzzy"},
        {"extra": 1},
    ],
)
def test_rules_out_of_bounds(change: dict[str, Any]) -> None:
    """Times are positive and finite, priorities 1 to 5, names plain, keys known."""
    with pytest.raises(ValidationError):
        Rule.model_validate(RULE | change)


@pytest.mark.parametrize("address", ["embedded", "h:7233", "10.0.0.1:7233", "[::1]:7233"])
def test_engine_addresses(address: str) -> None:
    """The engine is our own or stands at host:port."""
    assert address == Temporal(address=address).address


@pytest.mark.parametrize("address", ["", "h", "http://h:1", "h:", ":1", "::1:7233", "h:1/x"])
def test_what_is_no_engine_address(address: str) -> None:
    """Schemes, missing ports and unbracketed IPv6 are refused."""
    with pytest.raises(ValidationError):
        Temporal(address=address)


def test_the_embedded_engine_has_a_local_target() -> None:
    """Only ``embedded`` is an engine that we start."""
    assert ("127.0.0.1:7233", True) == (Temporal().target, Temporal().is_embedded)


@pytest.mark.parametrize(
    ("address", "compression", "compresses"),
    [
        ("embedded", "auto", False),
        ("localhost:7233", "auto", False),
        ("[::1]:7233", "auto", False),
        ("engine.example:7233", "auto", True),
        ("10.0.0.7:7233", "auto", True),
        ("engine.example:7233", "none", False),
        ("embedded", "gzip", True),
    ],
)
def test_calls_to_another_machine_are_compressed(
    address: str, compression: Literal["auto", "gzip", "none"], *, compresses: bool
) -> None:
    """On the same one it costs both sides time and saves nothing, unless somebody wants it."""
    assert Temporal(address=address, compression=compression).compresses is compresses


def test_tls_may_be_a_word() -> None:
    """``tls: true`` is the short form of its block."""
    tls = Temporal.model_validate({"tls": True}).tls
    assert tls is not None
    assert tls.enabled


def test_an_agents_own_connections_count_first() -> None:
    """Without its own number an agent has the one of all."""
    instances = (Instance(url="http://h"),)
    settings = Settings(
        agents={
            "own": Agent(instances=instances, max_connections=7),
            "other": Agent(instances=instances),
        }
    )
    assert (7, 100) == (settings.connections("own"), settings.connections("other"))


def test_settings_do_not_change() -> None:
    """What was loaded is frozen."""
    with pytest.raises(ValidationError):
        Settings().agent.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1/a/b?c", "http://h:1"),
        ("HTTPS://h", "https://h"),
        ("http://[::1]:2/", "http://[::1]:2"),
    ],
)
def test_the_origin_of_a_url(url: str, expected: str) -> None:
    """Scheme, host and port remain."""
    assert expected == origin(url)
