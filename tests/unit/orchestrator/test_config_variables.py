"""Variables in values, and values from the environment."""

from pathlib import Path

import pytest

from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError
from tests.unit.orchestrator.config_text import AGENT, load_text, refused


@pytest.mark.parametrize(
    "text", ["agent:\n  port: ${PORT:-8001}\n", "agent: {port: '${PORT:-8001}'}\n"]
)
@pytest.mark.parametrize(("environ", "port"), [({}, 8001), ({"PORT": "9000"}, 9000)])
def test_a_variable_has_the_type_of_its_place(
    tmp_path: Path, text: str, environ: dict[str, str], port: int
) -> None:
    """A port is a number, quoted or not, from the environment or by default."""
    assert port == load_text(tmp_path, text, environ).agent.port


@pytest.mark.parametrize("value", ["0123", "1e5", "true", "2026-01-05", "a: b", "x # y", "[1]"])
@pytest.mark.parametrize(
    "text", ["temporal: {api_key: '${KEY}'}\n", "temporal:\n  api_key: ${KEY}\n"]
)
def test_a_secret_stays_a_text(tmp_path: Path, text: str, value: str) -> None:
    """Whatever a secret looks like, it is not read as YAML."""
    key = load_text(tmp_path, text, {"KEY": value}).temporal.api_key
    assert key is not None
    assert value == key.get_secret_value()


def test_an_empty_default_leaves_an_optional_value_out(tmp_path: Path) -> None:
    """``${KEY:-}`` is how a value may be absent."""
    assert load_text(tmp_path, "temporal:\n  api_key: ${KEY:-}\n").temporal.api_key is None


def test_variables_within_a_text(tmp_path: Path) -> None:
    """Several variables and their surroundings make one value."""
    text = "agents: {reader: {instances: [{url: 'http://${HOST}:${PORT:-80}/x'}]}}\n"
    settings = load_text(tmp_path, text, {"HOST": "h"})
    assert "http://h:80/x" == settings.agents["reader"].instances[0].url


def test_an_empty_variable_takes_the_default(tmp_path: Path) -> None:
    """As in a shell, ``:-`` counts an empty variable as missing."""
    settings = load_text(tmp_path, "agent:\n  name: ${NAME:-n}\n", {"NAME": ""})
    assert "n" == settings.agent.name


def test_two_dollars_are_one(tmp_path: Path) -> None:
    """``$$`` writes a dollar sign, and what follows is no variable."""
    assert "${NAME}" == load_text(tmp_path, "agent: {name: '$${NAME}'}\n").agent.name


def test_a_single_dollar_is_itself(tmp_path: Path) -> None:
    """A dollar sign without a brace is an ordinary character."""
    assert "a$b$" == load_text(tmp_path, "agent: {name: a$b$}\n").agent.name


def test_values_of_variables_are_not_expanded_again(tmp_path: Path) -> None:
    """What the environment holds is taken as it is."""
    settings = load_text(tmp_path, "agent:\n  name: ${A}\n", {"A": "${B}$$", "B": "b"})
    assert "${B}$$" == settings.agent.name


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    """The problem says where it is wanted and what helps."""
    problems = refused(tmp_path, "agent:\n  host: ${API_HOST}\n")
    expected = (
        "config.yaml:2: agent.host: environment variable API_HOST is not set; set it, or write "
        "${API_HOST:-default}"
    )
    assert expected in problems


@pytest.mark.parametrize("value", ["${", "${A", "${A-b}", "${A:b}", "${1}", "${A:-${B}}"])
def test_a_broken_variable_is_refused(tmp_path: Path, value: str) -> None:
    """What looks like a variable and is none does not pass as a text."""
    problems = refused(tmp_path, f"agent: {{name: '{value}'}}\n", {"A": "a", "B": "b"})
    assert "agent.name: found" in problems[0]
    assert "allowed: ${NAME}" in problems[0]


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """The path of a value, in capitals and with two underlines, names its variable."""
    environ = {"ORCHESTRATOR_AGENT__PORT": "9000", "ORCHESTRATOR_LOGGING__LEVEL": "error"}
    settings = load_text(tmp_path, "agent: {port: 1}\n", environ)
    assert (9000, "error") == (settings.agent.port, settings.logging.level)


def test_the_environment_alone_is_a_configuration() -> None:
    """Without a file an agent and its rule can still be given."""
    environ = {
        "ORCHESTRATOR_AGENTS__READER__INSTANCES__0__URL": "http://h:1",
        "ORCHESTRATOR_ROUTING_RULES__0__PATTERN": "p",
        "ORCHESTRATOR_ROUTING_RULES__0__TARGET_AGENT": "reader",
        "ORCHESTRATOR_ROUTING_RULES__0__ENDPOINT": "/x",
    }
    assert ["reader"] == [rule.target_agent for rule in load(None, environ).routing_rules]


def test_an_item_of_a_list_is_overridden_by_its_number(tmp_path: Path) -> None:
    """Only the item that the number names is changed."""
    rules = "".join(f"  - {{pattern: p{i}, target_agent: reader, endpoint: /x}}\n" for i in (0, 1))
    environ = {"ORCHESTRATOR_ROUTING_RULES__1__TIMEOUT": "60"}
    settings = load_text(tmp_path, f"{AGENT}routing_rules:\n{rules}", environ)
    assert [30.0, 60.0] == [rule.timeout for rule in settings.routing_rules]


def test_items_are_appended_in_the_order_of_their_numbers() -> None:
    """Item 10 comes after item 9, not after item 1."""
    urls = [f"http://h:{number}" for number in range(1, 13)]
    environ = {
        f"ORCHESTRATOR_AGENTS__READER__INSTANCES__{index}__URL": url
        for index, url in enumerate(urls)
    }
    assert urls == [each.url for each in load(None, environ).agents["reader"].instances]


def test_a_whole_list_as_yaml(tmp_path: Path) -> None:
    """A variable may hold a list."""
    environ = {"ORCHESTRATOR_AGENTS__READER__CAPABILITIES": "[pdf, text]"}
    assert ("pdf", "text") == load_text(tmp_path, AGENT, environ).agents["reader"].capabilities


def test_keys_are_found_in_any_case(tmp_path: Path) -> None:
    """An agent with capitals in its name is met by a variable in capitals."""
    text = "agents: {PdfReader: {instances: [{url: 'http://h:1'}]}}\n"
    settings = load_text(tmp_path, text, {"ORCHESTRATOR_AGENTS__PDFREADER__IDEMPOTENT": "false"})
    assert [("PdfReader", False)] == [(k, v.idempotent) for k, v in settings.agents.items()]


@pytest.mark.parametrize("value", ["0123", "null x", "a: b", "x # y", "2026-01-05", "{", "*a", "!"])
def test_a_secret_from_the_environment_stays_a_text(value: str) -> None:
    """Whatever a secret looks like, the variable's value is taken literally."""
    secret = load(None, {"ORCHESTRATOR_TEMPORAL__API_KEY": value}).temporal.api_key
    assert secret is not None
    assert value == secret.get_secret_value()


def test_a_quoted_text_loses_its_quotes() -> None:
    """Quotes are allowed, as in YAML."""
    assert "::1" == load(None, {"ORCHESTRATOR_AGENT__HOST": '"::1"'}).agent.host


def test_a_folder_with_odd_characters_from_the_environment() -> None:
    """A path is not read as YAML."""
    settings = load(None, {"ORCHESTRATOR_STORAGE__DATA_DIR": "/srv/a: b #c"})
    assert Path("/srv/a: b #c") == settings.storage.data_dir


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("ORCHESTRATOR_AGENT__PROT", "agent.prot: unknown key (did you mean port?)"),
        ("ORCHESTRATOR_NOWHERE__X", "nowhere: unknown key"),
        ("ORCHESTRATOR_AGENT__PORT__X", "names a place that the configuration does not have"),
        ("ORCHESTRATOR_ROUTING_RULES__3__TIMEOUT", "names a place that the configuration"),
        ("ORCHESTRATOR_ROUTING_RULES__²__TIMEOUT", "names a place that the configuration"),
        ("ORCHESTRATOR_ROUTING_RULES__X", "names a place that the configuration does not have"),
    ],
)
def test_an_unknown_place_is_refused_by_the_variables_name(
    tmp_path: Path, variable: str, problem: str
) -> None:
    """The problem names the variable, since no line of the file is wrong."""
    text = AGENT + "agent: {port: 1}\nrouting_rules: []\n"
    [found] = refused(tmp_path, text, {variable: "1"})
    assert f"environment variable {variable}" in found
    assert problem in found


def test_a_wrong_value_is_refused_by_the_variables_name(tmp_path: Path) -> None:
    """A bad override hides no line of the file behind it."""
    problems = refused(tmp_path, "agent: {port: 1}\n", {"ORCHESTRATOR_AGENT__PORT": "many"})
    expected = 'environment variable ORCHESTRATOR_AGENT__PORT: agent.port: found "many"'
    assert problems[0].startswith(expected)


@pytest.mark.parametrize("value", ["!!bool x", "!!float ''", "&a [*a]", "[" * 5000, "2026-13-45"])
def test_odd_yaml_in_a_variable_is_a_wrong_value(value: str) -> None:
    """What YAML chokes on is reported like any other wrong value."""
    problems = refused_environment({"ORCHESTRATOR_AGENT__PORT": value})
    assert "agent.port: found" in problems


def refused_environment(environ: dict[str, str]) -> str:
    """The problems of a configuration without a file."""
    with pytest.raises(ConfigurationError) as caught:
        load(None, environ)
    return str(caught.value)


def test_variables_of_the_command_line_are_no_overrides() -> None:
    """ORCHESTRATOR_CONFIG and its like have no double underline."""
    assert load(None, {}) == load(None, {"ORCHESTRATOR_CONFIG": "x", "ORCHESTRATOR_PORT": "1"})
