"""Precedence and totality of routing, for any rules and any request."""

import fnmatch
import re
import warnings

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.config import Match, Rule, Settings
from orchestrator.errors import UnknownPattern
from orchestrator.models import Plan, TaskRequest
from orchestrator.routing import Routes, kind_of, pattern_problem, specificity

SIGNS = st.text(alphabet="ab_.*?[]^$+-!", min_size=1, max_size=6)
ANYTHING = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    min_size=1,
    max_size=20,
)
CAPABILITY = st.sampled_from(["pdf", "text", "audio"])


@st.composite
def configurations(draw: st.DrawFn, patterns: st.SearchStrategy[str]) -> Settings:
    """Settings with rules that load; agents are named after the place of their rule."""
    names = draw(st.lists(st.tuples(patterns, st.sampled_from(Match)), max_size=8))
    rules = tuple(
        Rule(pattern=pattern, match=match, target_agent=f"agent{index}", endpoint="/x")
        for index, (pattern, match) in enumerate(names)
        if pattern_problem(pattern, match) is None
    )
    agents = {
        f"agent{index}": {"capabilities": draw(st.lists(CAPABILITY, unique=True))}
        for index in range(len(names))
    }
    return Settings.model_validate({"agents": agents, "routing_rules": rules}, strict=False)


def matches(rule: Rule, pattern: str) -> bool:
    """Whether a rule matches, said in the plainest way."""
    kind = kind_of(rule.pattern, rule.match)
    if kind is Match.EXACT:
        return rule.pattern == pattern
    if kind is Match.GLOB:
        return fnmatch.fnmatchcase(pattern, rule.pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.fullmatch(rule.pattern, pattern) is not None


ORDER = {Match.EXACT: 0, Match.GLOB: 1, Match.REGEX: 2}


@settings(max_examples=300)
@given(configurations(SIGNS), SIGNS)
def test_the_chosen_rule_is_the_first_in_precedence(settings: Settings, pattern: str) -> None:
    """Exact, glob, regex; then the most specific; then the first in the file; nothing else."""
    fitting = [rule for rule in settings.routing_rules if matches(rule, pattern)]

    def rank(rule: Rule) -> tuple[int, int]:
        kind = kind_of(rule.pattern, rule.match)
        literal = 0 if kind is Match.EXACT else specificity(rule.pattern, kind)
        return ORDER[kind], -literal

    try:
        plan = Routes(settings).plan(TaskRequest(pattern=pattern, payload={}))
    except UnknownPattern:
        assert not fitting
    else:
        assert min(fitting, key=rank).target_agent == plan.agent


@settings(max_examples=300)
@given(
    configurations(SIGNS | ANYTHING),
    st.none() | SIGNS | ANYTHING,
    st.lists(CAPABILITY | ANYTHING, max_size=3),
    st.none() | st.integers(1, 5),
    st.none() | st.floats(min_value=0.001, max_value=1e6),
)
def test_every_request_has_a_plan_or_is_unknown(
    settings: Settings,
    pattern: str | None,
    capabilities: list[str],
    priority: int | None,
    timeout: float | None,
) -> None:
    """Planning is total: a complete plan, or UnknownPattern, and never another error."""
    assume(pattern is not None or capabilities)
    request = TaskRequest(
        pattern=pattern,
        payload={},
        capabilities=tuple(capabilities),
        priority=priority,
        timeout=timeout,
    )
    try:
        plan = Routes(settings).plan(request)
    except UnknownPattern as error:
        assert len(error.closest) <= 3  # noqa: PT017 - another error would fail the test
    else:
        assert plan == Plan.model_validate_json(plan.model_dump_json())
        assert plan.agent in settings.agents
        assert plan.deadline > 0


@settings(max_examples=200)
@given(configurations(SIGNS), SIGNS, st.lists(CAPABILITY, min_size=1, max_size=3))
def test_an_agent_of_capabilities_has_them_all(
    settings: Settings, pattern: str, capabilities: list[str]
) -> None:
    """No agent is chosen that lacks what was asked, and none left out that has it."""
    assume(not any(matches(rule, pattern) for rule in settings.routing_rules))
    able = {
        name
        for name, agent in settings.agents.items()
        if set(capabilities) <= set(agent.capabilities)
    }
    request = TaskRequest(pattern=pattern, payload={}, capabilities=tuple(capabilities))
    try:
        chosen = Routes(settings).plan(request).agent
    except UnknownPattern:
        assert not able
    else:
        assert chosen in able


@given(ANYTHING)
def test_a_pattern_always_has_a_kind(pattern: str) -> None:
    """Every pattern is exact, glob or regex, and either usable or explained."""
    kind = kind_of(pattern)
    assert kind is not Match.AUTO
    assert kind is Match.REGEX or pattern_problem(pattern) is None
