"""YAML that is legal and odd, and text that is neither, always ends in settings or in problems."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import Settings
from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError
from tests.unit.orchestrator.config_text import AGENT, load_text, refused

SHIPPED = Path(__file__).parents[3] / "config.yaml"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "~\n", "---\n# nothing\n"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    """Every block may be left out, and so may all of them."""
    assert load(None, {}) == load_text(tmp_path, text)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """Files of editors that write one can be read."""
    assert 81 == load_text(tmp_path, "\ufeffagent: {port: 81}\n").agent.port


def test_an_alias_repeats_its_anchor(tmp_path: Path) -> None:
    """Two agents may share one definition."""
    text = "agents:\n  a: &d {instances: [{url: 'http://h:1'}]}\n  b: *d\n"
    agents = load_text(tmp_path, text).agents
    assert agents["a"] == agents["b"]


@pytest.mark.parametrize(
    "text",
    [
        "agent: &a {name: *a}\n",
        "agents: &a\n  x: *a\n",
        "routing_rules: &a [*a]\n",
        "agent: " + "[" * 400 + "]" * 400 + "\n",
        "agent: " + "[" * 5000 + "]" * 5000 + "\n",
        "\n".join(" " * depth + "a:" for depth in range(700)) + "\n",
    ],
)
def test_endless_and_deep_structures_are_refused(tmp_path: Path, text: str) -> None:
    """An alias within its own anchor ends as soon as anything else that is nested too deep."""
    [problem] = refused(tmp_path, text)
    assert "nested deeper than 30 levels" in problem


@pytest.mark.timeout(30)
def test_an_alias_bomb_is_defused(tmp_path: Path) -> None:
    """Aliases that multiply to a thousand million values are cut off."""
    [problem] = refused(tmp_path, BOMB)
    assert "more than 100,000 values" in problem


@pytest.mark.parametrize(
    "text",
    [
        "agent: !!python/object:os.system {}\n",
        "agent: {name: !!python/object/apply:os.system [x]}\n",
        "agent: {name: !secret x}\n",
        "agent: {name: !!binary aGk=}\n",
        "agents: !!set {}\n",
    ],
)
def test_tags_are_refused(tmp_path: Path, text: str) -> None:
    """A tag that would be ignored is an error instead."""
    assert any("found the tag" in problem for problem in refused(tmp_path, text))


@pytest.mark.parametrize("value", ["!!int abc", "!!int ''", "!!int ':'", "0x" + "f" * 5000])
def test_tagged_and_huge_integers_are_wrong_values(tmp_path: Path, value: str) -> None:
    """What a tag promises and the value does not keep is a wrong value."""
    [problem] = refused(tmp_path, f"agent: {{port: {value}}}\n")
    assert "agent.port: found" in problem


@pytest.mark.parametrize("value", ["!!float ''", "!!float x", "9:" * 2000 + "1.5", ".inf", ".nan"])
def test_numbers_that_are_none(tmp_path: Path, value: str) -> None:
    """Only finite numbers are numbers."""
    [problem] = refused(tmp_path, f"rate_limiting: {{default_rate: {value}}}\n")
    assert "rate_limiting.default_rate: found" in problem


def test_a_tagged_boolean_that_is_none(tmp_path: Path) -> None:
    """``!!bool`` makes nothing true."""
    [problem] = refused(tmp_path, "monitoring: {enable_metrics: !!bool x}\n")
    assert 'monitoring.enable_metrics: found "x"; allowed: a valid boolean' in problem


@pytest.mark.parametrize(
    ("value", "port"), [("9_000", 9000), ("0x1F90", 8080), ("017", 15), ("+80", 80), ("1:30", 90)]
)
def test_integers_of_yaml(tmp_path: Path, value: str, port: int) -> None:
    """The spellings of YAML 1.1 count."""
    assert port == load_text(tmp_path, f"agent: {{port: {value}}}\n").agent.port


@pytest.mark.parametrize("value", ["1e3", "08000", "0o17", "8 000", "8000.0", "'8000'"])
def test_what_yaml_takes_for_text_is_no_port(tmp_path: Path, value: str) -> None:
    """A number in a spelling that YAML 1.1 lacks is refused, not guessed."""
    [problem] = refused(tmp_path, f"agent: {{port: {value}}}\n")
    assert "allowed: a valid integer" in problem


@pytest.mark.parametrize("name", ["2020-01-01", "2020-13-45", "=", "<<", "on_call", "12:30:45.5x"])
def test_texts_that_look_like_something_else(tmp_path: Path, name: str) -> None:
    """Dates and YAML's own signs are texts where a text belongs."""
    assert name == load_text(tmp_path, f"agent: {{name: {name}}}\n").agent.name


@pytest.mark.parametrize("section", ["agent", "agents", "routing_rules", "logging"])
def test_a_block_without_content_is_named(tmp_path: Path, section: str) -> None:
    """A key with nothing behind it is said to be empty, with its line."""
    [problem] = refused(tmp_path, f"# all commented out\n{section}:\n")
    assert problem.startswith(f"config.yaml:2: {section}: found null; allowed: a ")


@pytest.mark.parametrize("key", ["1", "~", "2020-01-01", "''", "${KEY}", "yes"])
def test_keys_are_texts(tmp_path: Path, key: str) -> None:
    """A key that YAML would type is an unknown key like any other."""
    [problem] = refused(tmp_path, f"{key}: 2\n", {"KEY": "agent"})
    assert "unknown key" in problem


@pytest.mark.parametrize("key", ["[a, b]", "{a: b}"])
def test_a_key_that_is_a_structure(tmp_path: Path, key: str) -> None:
    """A list or mapping in the place of a key is refused without its inner representation."""
    [problem] = refused(tmp_path, f"? {key}\n: 2\n")
    assert "config.yaml:1: found a key that is not text" == problem


def test_an_agent_named_by_a_number(tmp_path: Path) -> None:
    """Names of digits are names."""
    assert ["17"] == list(load_text(tmp_path, AGENT.replace("reader", "17")).agents)


def test_a_merge_key_is_refused(tmp_path: Path) -> None:
    """``<<`` is not silently left out."""
    [problem] = refused(tmp_path, "agent:\n  <<: {port: 1}\n")
    assert "config.yaml:2: agent.<<: unknown key" in problem


@pytest.mark.parametrize("name", ["\\ud800", "a\\udfffb"])
def test_half_a_character_is_refused(tmp_path: Path, name: str) -> None:
    """A lone surrogate is no text, and the rest of the file is not shown because of it."""
    text = f'agent: {{name: "{name}"}}\ntemporal: {{api_key: "314159"}}\n'
    [problem] = refused(tmp_path, text)
    assert "config.yaml:1: a value holds half a character: not UTF-8" == problem


def outcome(text: str) -> Settings | ConfigurationError:
    """What a configuration of that text comes to; anything else fails the test."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            return load(path, {})
        except ConfigurationError as error:
            return error


def check(result: Settings | ConfigurationError) -> None:
    """Problems have a place in the file and words."""
    if isinstance(result, ConfigurationError):
        assert result.problems
        for problem in result.problems:
            assert "config.yaml" in problem.where
            assert problem.what


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_settings_or_problems(text: str) -> None:
    """No text makes the reader fail in another way."""
    check(outcome(text))


YAMLISH = st.text(alphabet="agents:{}[]&*!|>%@`-? \n\t'\"#0123.eE_~<=$,xu\\", max_size=80)


@settings(max_examples=300, deadline=None)
@given(YAMLISH)
def test_any_signs_of_yaml_are_settings_or_problems(text: str) -> None:
    """Nor does any jumble of YAML's own signs."""
    check(outcome("agent: {name: x}\n" + text))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_mutated_configuration_is_settings_or_problems(data: Any) -> None:
    """Nor does the shipped configuration with a piece replaced."""
    text = SHIPPED.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    check(outcome(text[:start] + data.draw(YAMLISH) + text[end:]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), value=VALUES)
def test_any_value_in_any_place_is_settings_or_problems(data: Any, value: Any) -> None:
    """Nor does a value of another type in the place of one that was right."""
    plain = yaml.safe_load(SHIPPED.read_text())
    target = plain
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(target[key], dict | list) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = value
    check(outcome(yaml.safe_dump(plain)))
