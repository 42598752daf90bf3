"""What a wrong configuration is answered with: file, line, key, what was found, what is allowed."""

from pathlib import Path

import pytest

from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError
from tests.unit.orchestrator.config_text import AGENT, refused

RULE = "routing_rules: [{pattern: p, target_agent: reader, endpoint: /x, %s}]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "agnet: {}\n",
            "config.yaml:1: agnet: unknown key (did you mean agent?); allowed: agent, ",
        ),
        (
            "agent:\n  nme: x\n",
            "config.yaml:2: agent.nme: unknown key (did you mean name?); allowed: name, host, port",
        ),
        ("agent: {port: x}\n", 'config.yaml:1: agent.port: found "x"; allowed: a valid integer'),
        ("agent: {port: 1.5}\n", "config.yaml:1: agent.port: found 1.5; allowed: a valid integer"),
        (
            "agent: {port: true}\n",
            "config.yaml:1: agent.port: found true; allowed: a valid integer",
        ),
        (
            "\nagent: {port: 70000}\n",
            "config.yaml:2: agent.port: found 70000; allowed: less than or equal to 65535",
        ),
        (
            "load_balancing: {strategy: fastest}\n",
            (
                'config.yaml:1: load_balancing.strategy: found "fastest"; allowed: round_robin, '
                "least_connections, weighted, latency"
            ),
        ),
        (
            "error_recovery: {retry_delay: 0}\n",
            "config.yaml:1: error_recovery.retry_delay: found 0; allowed: greater than 0",
        ),
        (
            "error_recovery: {backoff_multiplier: 0.5}\n",
            (
                "config.yaml:1: error_recovery.backoff_multiplier: found 0.5; allowed: greater "
                "than or equal to 1"
            ),
        ),
        ("agent: [1]\n", "config.yaml:1: agent: found [1]; allowed: a mapping"),
        ("agents: [x]\n", 'config.yaml:1: agents: found ["x"]; allowed: a mapping'),
        (
            "routing_rules: {a: 1}\n",
            'config.yaml:1: routing_rules: found {"a": 1}; allowed: a list',
        ),
        (
            "agents: {a: {instances: [{weight: 2}]}}\n",
            "config.yaml:1: agents.a.instances[0].url: is missing",
        ),
        (
            "agents: {a b: {instances: [{url: 'http://h:1'}]}}\n",
            (
                'config.yaml:1: agents.a b: found "a b"; allowed: a name of letters, digits, '
                "'_', '-' and '.'"
            ),
        ),
        (
            "temporal: {address: somewhere}\n",
            'config.yaml:1: temporal.address: found "somewhere"; allowed: embedded, or host:port',
        ),
        (
            "temporal: {tls: {ca: x}}\n",
            (
                "config.yaml:1: temporal.tls.ca: unknown key; allowed: enabled, server_name, "
                "ca_file, cert_file, key_file"
            ),
        ),
        (
            "agents: {a: {health_check: {path: health}}}\n",
            (
                'config.yaml:1: agents.a.health_check.path: found "health"; allowed: a path that '
                "begins with /"
            ),
        ),
        (
            "agents: {function-call: {instance: []}}\n",
            "config.yaml:1: agents.function-call.instance: unknown key (did you mean instances?)",
        ),
        (
            "agents: {health_check: {instance: []}}\n",
            "config.yaml:1: agents.health_check.instance: unknown key (did you mean instances?)",
        ),
        (
            AGENT + RULE % "dispatch: later",
            'config.yaml:2: routing_rules[0].dispatch: found "later"; allowed: queued, inline',
        ),
        (
            AGENT + RULE % "priority: 6",
            "config.yaml:2: routing_rules[0].priority: found 6; allowed: less than or equal to 5",
        ),
        (
            AGENT + RULE % "fallback_agents: [writer]",
            "config.yaml:2: routing_rules[0].fallback_agents: found 'writer'; allowed: reader",
        ),
        (
            "agents: {a: {}}\n",
            "config.yaml:1: agents.a.instances: is missing; allowed: a list of {url: ...}",
        ),
        (
            "routing_rules: [{pattern: p, target_agent: nobody, endpoint: /x}]\n",
            "config.yaml:1: routing_rules[0].target_agent: found 'nobody', which has no instances",
        ),
        (
            AGENT + "routing_rules: [{pattern: '(', target_agent: reader, endpoint: /x}]\n",
            "config.yaml:2: routing_rules[0].pattern: found '('; allowed: a regular expression",
        ),
        (
            AGENT + "routing_rules: [{pattern: 'a{99999999999}', target_agent: reader, "
            "endpoint: /x}]\n",
            "config.yaml:2: routing_rules[0].pattern: found 'a{99999999999}'; allowed: a regular",
        ),
        ("agent: {port: 1}\nagent: {}\n", "config.yaml:2: agent: given before, at "),
        ("agent: {port: 1, port: 2}\n", "config.yaml:1: agent.port: given before, at "),
    ],
)
def test_a_problem_names_its_place_and_what_helps(tmp_path: Path, text: str, problem: str) -> None:
    """File, line and key, then what is wrong and what would be right."""
    [found] = refused(tmp_path, text)
    assert problem == found[: len(problem)]


def test_a_pattern_is_routed_once(tmp_path: Path) -> None:
    """The second rule for a pattern would never be met."""
    rule = "  - {pattern: p, target_agent: reader, endpoint: /x}\n"
    problems = refused(tmp_path, f"{AGENT}routing_rules:\n{rule}{rule}")
    expected = [
        "config.yaml:4: routing_rules[1].pattern: 'p' is routed before, by routing_rules[0]"
    ]
    assert expected == problems


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    """One attempt shows everything that is wrong."""
    text = (
        "agent: {port: x, nme: 1}\nagent: {}\nload_balancing:\n  strategy: fastest\n"
        "routing_rules:\n  - {pattern: p, endpoint: nowhere}\nwhat: 1\n"
    )
    places = [problem.split(": ", 2)[:2] for problem in refused(tmp_path, text)]
    expected = [
        ["config.yaml:2", "agent"],
        ["config.yaml:4", "load_balancing.strategy"],
        ["config.yaml:6", "routing_rules[0].endpoint"],
        ["config.yaml:6", "routing_rules[0].target_agent"],
        ["config.yaml:7", "what"],
    ]
    assert expected == sorted(places)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("agent: {port: 1\n", "config.yaml:2: not YAML: expected ',' or '}'"),
        ("agent:\n\tport: 1\n", "config.yaml:2: not YAML: found character '\\t'"),
        ("agent: {}\n---\nagent: {}\n", "config.yaml:2: not YAML: but found another document"),
        ("- agent\n", "config.yaml:1: found no mapping; allowed: agent, temporal, agents"),
        ("agent\n", "config.yaml:1: found no mapping; allowed: agent, temporal, agents"),
        ("agent: *nothing\n", "config.yaml:1: not YAML: found undefined alias 'nothing'"),
        ("agent: {name: \x01}\n", "config.yaml: not YAML: unacceptable character #x0001"),
    ],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, text: str, problem: str) -> None:
    """Broken YAML and other shapes are named with their line, on one line."""
    [found] = refused(tmp_path, text)
    assert problem == found[: len(problem)]
    assert "\n" not in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The reason is the system's."""
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml", {})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A directory in the place of the file is refused like a missing one."""
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    """Another encoding is named as the problem."""
    path = tmp_path / "config.yaml"
    path.write_bytes("agent: {name: Käte}".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"config\.yaml: cannot be read: not UTF-8 text"):
        load(path, {})


@pytest.mark.parametrize(
    "text",
    [
        "callbacks: {secret: 314159}\n",
        "callbacks: {secret: [s314159]}\n",
        "temporal: {api_key: {s: 314159}}\n",
        AGENT.replace("}}", ", headers: {Authorization: 314159}}}"),
        "agents: {a: {instances: [{url: 'http://me:314159@h'}]}}\n",
        "temporal: {address: 'http://me:314159@h'}\n",
    ],
)
def test_problems_show_no_secrets(tmp_path: Path, text: str) -> None:
    """A secret in the wrong form is not repeated where everybody can read it."""
    problems = refused(tmp_path, text)
    assert not any("314159" in problem for problem in problems)


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    """A problem stays readable whatever was found."""
    [problem] = refused(tmp_path, f"agent: {{port: {'x' * 1000}}}\n")
    assert len(problem) < 200
