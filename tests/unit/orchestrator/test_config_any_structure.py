"""The configuration's own keys with anything in them: settings, or problems with a place."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.config import Settings
from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError, ConfigurationProblem

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["http://h:1", "/x", "a", "${X}", "$$", "${X:-1}", "queued", "*", "[", "1s"])
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = st.sampled_from(["a", "b", "agent-1", "", " ", "é"])


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in models_in(each)]


def block(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of a model's keys, with values of their shape or of any other."""
    values: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in model.model_fields.items():
        inner = [block(each) for each in models_in(field.annotation)]
        shaped = [
            each | st.lists(each, max_size=2) | st.dictionaries(NAMES, each, max_size=2)
            for each in inner
        ]
        values[name] = st.one_of(*shaped, ANYTHING)
    return st.fixed_dictionaries({}, optional=values | {"unknown": ANYTHING})


STRUCTURES = block(Settings)


def problems(text: str, environ: dict[str, str]) -> list[ConfigurationProblem]:
    """What is wrong with a configuration; anything but a ConfigurationError fails the test."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            load(path, environ)
        except ConfigurationError as error:
            return list(error.problems) or [ConfigurationProblem("nowhere", "")]
    return []


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(STRUCTURES)
def test_any_structure_is_settings_or_problems_with_their_place(found: dict[str, Any]) -> None:
    """Each with the line, the path from the top, and words."""
    for problem in problems(yaml.safe_dump(found, allow_unicode=True), {}):
        match = re.search(r"config\.yaml(?::\d+)?(?:: (.+))?$", problem.where, re.DOTALL)
        assert match, problem.where
        if path := match[1]:
            assert any(
                path.startswith((name, f"'{name}'")) for name in [*found, *Settings.model_fields]
            )
        assert problem.what


PARTS = st.sampled_from(
    [*(name.upper() for name in Settings.model_fields), "PORT", "URL", "A", "0", "1", "99", "", "x"]
)
VARIABLES = st.dictionaries(
    st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "ORCHESTRATOR_" + "__".join(parts)),
    st.sampled_from(["", "1", "true", "{a: 1}", "[1]", "'x'", "&a [*a]", "!!int x", "${X}"])
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10),
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(VARIABLES, st.sampled_from(["{}\n", "agents: {a: {instances: [{url: 'http://h:1'}]}}\n"]))
def test_any_variables_are_settings_or_problems_that_name_them(
    environ: dict[str, str], text: str
) -> None:
    """Whatever place they name, and whatever they hold."""
    for problem in problems(text, environ):
        assert re.search(r"config\.yaml|environment variable ORCHESTRATOR_", problem.where)
        assert problem.what
