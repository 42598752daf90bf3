"""What differs between two configurations, and what of it a running process takes over."""

from pathlib import Path

import pytest

from orchestrator.config import Settings
from orchestrator.config_changes import (
    OTHER_REASON,
    REASONS,
    TAKEN_OVER,
    changes,
    needs_restart,
    settled,
    version_of,
)
from tests.unit.orchestrator.config_text import AGENT, load_text

RULES = "routing_rules: [{pattern: a, target_agent: reader, endpoint: /a}]\n"
BOTH = (
    "routing_rules: [{pattern: a, target_agent: reader, endpoint: /a}, "
    "{pattern: b, target_agent: reader, endpoint: /b}]\n"
)
TURNED = (
    "routing_rules: [{pattern: b, target_agent: reader, endpoint: /b}, "
    "{pattern: a, target_agent: reader, endpoint: /a}]\n"
)


def of(folder: Path, text: str) -> Settings:
    """A configuration with one agent."""
    return load_text(folder, AGENT + text)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", ()),
        (RULES, BOTH, ("routing_rules.b (new)",)),
        (BOTH, RULES, ("routing_rules.b (gone)",)),
        (RULES, RULES.replace("/a}", "/a, timeout: 5}"), ("routing_rules.a.timeout",)),
        (BOTH, TURNED, ("routing_rules",)),
        ("", "limits: {max_batch_bytes: 2048}", ("limits.max_batch_bytes",)),
        ("", "agent: {port: 9}\ncallbacks: {allow: [h]}", ("agent.port", "callbacks.allow")),
    ],
)
def test_what_differs_is_named_by_its_key(
    before: str, after: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    """Agents by their name, rules by their pattern; an order that changed as the whole list."""
    assert expected == changes(of(tmp_path, before), of(tmp_path, after))


def test_an_agent_that_comes_or_goes_is_one_change(tmp_path: Path) -> None:
    """Its secrets are no part of what is said."""
    other = AGENT.replace("reader", "writer")
    secret = other.replace("instances:", "headers: {X-Key: planted}, instances:")
    found = changes(load_text(tmp_path, AGENT), load_text(tmp_path, secret))
    assert ("agents.reader (gone)", "agents.writer (new)") == found


def test_a_changed_secret_is_named_and_not_told(tmp_path: Path) -> None:
    """The name of the header, never its value."""
    first, second = (
        load_text(tmp_path, AGENT.replace("instances:", f"headers: {{X-Key: {each}}}, instances:"))
        for each in ("planted-1", "planted-2")
    )
    assert ("agents.reader.headers.X-Key",) == changes(first, second)


@pytest.mark.parametrize("section", sorted(set(Settings.model_fields) - set(TAKEN_OVER)))
def test_a_section_that_is_not_taken_over_needs_a_restart(section: str) -> None:
    """With a reason of its own, or the general one."""
    found = needs_restart((f"{section}.anything",))
    assert {f"{section}.anything": REASONS.get(section, OTHER_REASON)} == found


@pytest.mark.parametrize("section", sorted(TAKEN_OVER))
def test_what_is_taken_over_is_there(section: str) -> None:
    """A key that is renamed in the configuration is renamed here too."""
    fields = TAKEN_OVER[section]
    kind = Settings.model_fields[section].annotation
    assert fields is None or fields <= set(getattr(kind, "model_fields", ()))


def test_single_keys_of_a_section_may_need_a_restart(tmp_path: Path) -> None:
    """The rest of the section does not."""
    text = "callbacks: {max_connections: 7, timeout: 3}\nrate_limiting: {redis: 'redis://h'}"
    found = changes(of(tmp_path, "rate_limiting: {}"), of(tmp_path, text))
    assert {"callbacks.max_connections", "rate_limiting.redis"} == set(needs_restart(found))


def test_what_needs_a_restart_stays_as_it_runs(tmp_path: Path) -> None:
    """All else is as it is wanted."""
    running = of(tmp_path, "")
    wanted = of(tmp_path, RULES + "agent: {port: 9}\ncallbacks: {max_connections: 7, timeout: 3}")
    found = settled(running, wanted)
    assert ("callbacks.timeout", "routing_rules.a (new)") == changes(running, found)
    assert ("agent.port", "callbacks.max_connections") == changes(found, wanted)


def test_a_block_that_was_given_or_not_stays_so(tmp_path: Path) -> None:
    """Agents have a limit where the file has the block, be it empty."""
    bare, limited = of(tmp_path, ""), of(tmp_path, "rate_limiting: {}")
    assert settled(limited, bare).rate_limit("reader") is None
    assert settled(bare, limited).rate_limit("reader") is not None
    assert version_of(bare) != version_of(limited)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("agent: {port: 9}\nmonitoring: {metrics_port: 8}\nlogging: {level: debug}", True),
        ("callbacks: {secret: whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz}", False),
        (RULES, False),
    ],
)
def test_the_version_is_of_what_processes_share(text: str, same: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a case
    """Ports and the like are each process's own."""
    assert same == (version_of(of(tmp_path, "")) == version_of(of(tmp_path, text)))


def test_the_version_tells_nothing_of_secrets(tmp_path: Path) -> None:
    """Or a weak one could be guessed by it."""
    first, second = (
        of(tmp_path, f"callbacks: {{secret: whsec_{each}}}")
        for each in ("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "OTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")
    )
    assert version_of(first) == version_of(second)


def test_logins_of_agents_outlive_a_change(tmp_path: Path) -> None:
    """They are no field of the configuration, since they are shown nowhere."""
    rules = (
        "routing_rules: [{pattern: a, target_agent: reader, endpoint: 'amqp://ann:pass@h/work'}]"
    )
    running = of(tmp_path, rules)
    found = settled(running, of(tmp_path, rules + "\nload_balancing: {health_check_interval: 7}"))
    assert {"ann:pass"} == {each.get_secret_value() for each in found.logins.values()}
