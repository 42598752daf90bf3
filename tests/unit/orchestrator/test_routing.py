"""Which rule serves a request, and what its plan says."""

from typing import Any

import pytest

from orchestrator.config import ErrorRecovery, Match, Settings
from orchestrator.errors import UnknownPattern
from orchestrator.models import Dispatch, Plan, RetryPlan, TaskRequest
from orchestrator.routing import (
    Routes,
    agent_queue,
    backoff_seconds,
    kind_of,
    pattern_problem,
    retry_plan,
    specificity,
)


def routes(*rules: dict[str, Any], agents: dict[str, Any] | None = None, **settings: Any) -> Routes:
    """Routes of these rules; a rule without an agent has one named after its place."""
    complete = [
        {"target_agent": f"agent{index}", "endpoint": "/x"} | rule
        for index, rule in enumerate(rules)
    ]
    named = {rule["target_agent"]: {} for rule in complete} | (agents or {})
    return Routes(
        Settings.model_validate(
            {"agents": named, "routing_rules": tuple(complete)} | settings, strict=False
        )
    )


def plan(chosen: Routes, pattern: str | None = "p", **request: Any) -> Plan:
    """The plan of a request."""
    return chosen.plan(TaskRequest.model_validate({"pattern": pattern, "payload": {}} | request))


@pytest.mark.parametrize(
    ("patterns", "wanted", "expected"),
    [
        (["p.*", "p*", "p"], "p", "exact pattern p"),
        (["^p.$", "p*", "x"], "p1", "glob p*"),
        (["^p.$", "x"], "p1", "regex ^p.$"),
        (["*", "up*", "upload_*", "u*"], "upload_pdf", "glob upload_*"),
        (["a*", "*b"], "ab", "glob a*"),
        (["*b", "a*"], "ab", "glob *b"),
        (["^up.*$", "^upload_.*$"], "upload_pdf", "regex ^upload_.*$"),
        (["[ab]*", "a?"], "ab", "glob a?"),
        (["pdf[12]*", "pdf?*"], "pdf12", "glob pdf[12]*"),
    ],
)
def test_the_most_specific_kind_and_pattern_win(
    patterns: list[str], wanted: str, expected: str
) -> None:
    """Exact before glob before regex; then more literal characters; then the order of the file."""
    chosen = routes(*({"pattern": pattern} for pattern in patterns))
    assert expected == plan(chosen, wanted).chosen_by


def test_every_sign_that_stands_for_itself_counts() -> None:
    """A dot in a glob is a letter like any other, and so is an escaped one in a regex."""
    globs = [{"pattern": each, "match": "glob"} for each in ("report*", "report.*")]
    assert "glob report.*" == plan(routes(*globs), "report.pdf").chosen_by
    assert specificity(r"a\.b", Match.REGEX) > specificity(r"a.b", Match.REGEX)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("up*", "startup_x"),
        ("^up", "upload"),
        ("up", "UP"),
        ("Up*", "upload"),
        ("a?", "a"),
        ("[", "a"),
    ],
)
def test_a_pattern_matches_the_whole_and_its_case(pattern: str, wanted: str) -> None:
    """Nothing is matched in part, or in another case."""
    with pytest.raises(UnknownPattern):
        plan(routes({"pattern": pattern}), wanted)


def test_match_overrules_the_signs() -> None:
    """A pattern with wildcards in it can be meant literally."""
    chosen = routes({"pattern": "a*", "match": "exact"}, {"pattern": "a.c", "match": "regex"})
    assert ["exact pattern a*", "regex a.c"] == [
        plan(chosen, wanted).chosen_by for wanted in ("a*", "abc")
    ]


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("upload_pdf", Match.EXACT),
        ("upload.pdf", Match.EXACT),
        ("a-b:c/d@e f", Match.EXACT),
        ("upload_*", Match.GLOB),
        ("upload?", Match.GLOB),
        ("[ab]c", Match.GLOB),
        ("upload.*", Match.REGEX),
        ("a.?", Match.REGEX),
        ("^a", Match.REGEX),
        ("a$", Match.REGEX),
        ("(a|b)", Match.REGEX),
        ("a+", Match.REGEX),
        ("a{2}", Match.REGEX),
        (r"\d", Match.REGEX),
        ("", Match.EXACT),
    ],
)
def test_the_kind_of_a_pattern(pattern: str, kind: Match) -> None:
    """Its signs decide: those of regexes first, then those of globs."""
    assert kind is kind_of(pattern)


@pytest.mark.parametrize(
    "pattern", ["(", "[a$", "a{2}{3}", "a{99999999999}", "(?P<n>a)(?P<n>b)", "\\"]
)
def test_a_bad_regex_is_a_problem(pattern: str) -> None:
    """Whatever the regex compiler raises becomes words."""
    assert f"found '{pattern}'; allowed: a regular expression" in str(
        pattern_problem(pattern, Match.REGEX)
    )


@pytest.mark.parametrize("pattern", ["^[[a]$", "^[a&&b]$", "^a.*b$"])
def test_a_good_regex_is_none(pattern: str) -> None:
    """Nor does what the compiler may warn of reach anybody."""
    assert pattern_problem(pattern) is None
    assert "exact pattern x" == plan(routes({"pattern": pattern}, {"pattern": "x"}), "x").chosen_by


def test_capabilities_choose_where_no_pattern_matches() -> None:
    """The agent that has them all, and least beside them."""
    agents = {
        "broad": {"capabilities": ["pdf", "text", "audio"]},
        "narrow": {"capabilities": ["text", "pdf"], "endpoint": "/read"},
        "other": {"capabilities": ["pdf"]},
    }
    chosen = plan(routes(agents=agents), "unknown", capabilities=["pdf", "text"])
    expected = ("narrow", "/read", "capabilities pdf, text")
    assert expected == (chosen.agent, chosen.endpoint, chosen.chosen_by)


def test_a_pattern_comes_before_capabilities() -> None:
    """Capabilities are asked only when no rule matches."""
    chosen = routes({"pattern": "*"}, agents={"able": {"capabilities": ["pdf"]}})
    assert "agent0" == plan(chosen, "p", capabilities=["pdf"]).agent


def test_an_agent_of_capabilities_is_called_as_its_first_rule_says() -> None:
    """Endpoint, timeout and dispatch are the rule's."""
    rules = [
        {"pattern": "a", "target_agent": "able", "endpoint": "/a", "timeout": 7},
        {"pattern": "b", "target_agent": "able", "endpoint": "/b", "timeout": 8},
    ]
    chosen = routes(*rules, agents={"able": {"capabilities": ["pdf"]}})
    result = plan(chosen, None, capabilities=["pdf"])
    assert ("/a", 7.0) == (result.endpoint, result.attempt_timeout)


def test_the_first_of_equally_able_agents() -> None:
    """The order of the file decides."""
    agents = {name: {"capabilities": ["pdf"]} for name in ("b", "a")}
    assert "b" == plan(routes(agents=agents), None, capabilities=["pdf"]).agent


def test_an_unknown_pattern_names_the_closest() -> None:
    """The error suggests what may have been meant, best first."""
    chosen = routes(*({"pattern": each} for each in ("upload_pdf", "upload_pdfs", "run_tests")))
    with pytest.raises(UnknownPattern, match="Unknown pattern 'uplod_pdf'; did you mean") as caught:
        plan(chosen, "uplod_pdf")
    assert ("upload_pdf", "upload_pdfs") == caught.value.closest


def test_nothing_like_it_suggests_nothing() -> None:
    """The documented text stands alone when nothing is close."""
    with pytest.raises(UnknownPattern) as caught:
        plan(routes({"pattern": "upload_pdf"}), "xyz")
    assert "Unknown pattern 'xyz'" == str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (None, "No agent has all of: fly, swim"),
        ("xyz", "Unknown pattern 'xyz'; no agent has all of: fly, swim"),
    ],
)
def test_missing_capabilities_are_named(pattern: str | None, text: str) -> None:
    """The error says what no agent can do."""
    with pytest.raises(UnknownPattern) as caught:
        plan(routes(agents={"a": {"capabilities": ["fly"]}}), pattern, capabilities=["fly", "swim"])
    assert text == str(caught.value)


def test_a_plan_holds_the_rules_values() -> None:
    """All that the workflow needs travels with it."""
    rule = {"pattern": "p", "timeout": 7, "priority": 5, "dispatch": "inline", "endpoint": "/y"}
    expected = Plan(
        agent="agent0",
        endpoint="/y",
        task_queue="agent.agent0",
        dispatch=Dispatch.INLINE,
        attempt_timeout=7,
        deadline=3600,
        priority=5,
        retry=retry_plan(ErrorRecovery()),
        chosen_by="exact pattern p",
        dead_letter=True,
    )
    assert expected == plan(routes(rule))


def test_the_requests_own_priority_and_timeout_count_first() -> None:
    """What the request leaves out is the rule's and the configuration's."""
    result = plan(routes({"pattern": "p", "priority": 5}), priority=1, timeout=0.5)
    assert (1, 0.5) == (result.priority, result.deadline)


def test_the_deadline_leaves_room_for_every_attempt() -> None:
    """Four attempts of 2000 s and pauses of 1, 2 and 4 s, a tenth longer by jitter."""
    result = plan(routes({"pattern": "p", "timeout": 2000}))
    assert pytest.approx(4 * 2000 + 7 * 1.1) == result.deadline


def test_a_short_course_has_the_configured_deadline() -> None:
    """``task_timeout`` is the least a task gets."""
    result = plan(routes({"pattern": "p"}, error_recovery={"task_timeout": 1000}))
    assert 1000 == result.deadline


@pytest.mark.parametrize(
    ("attempt", "pause"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (5000, 60)]
)
def test_pauses_double_up_to_the_maximum(attempt: int, pause: float) -> None:
    """One, two, four seconds; never more than the maximum, however many attempts."""
    assert pause == backoff_seconds(retry_plan(ErrorRecovery()), attempt)


def test_retries_in_the_engines_words() -> None:
    """Retries are attempts without the first; the maximum is never below the first pause."""
    recovery = ErrorRecovery(max_retries=0, retry_delay=90.0, retry_jitter=0.5)
    expected = RetryPlan(
        max_attempts=1,
        initial_seconds=90,
        backoff=2,
        maximum_seconds=90,
        jitter=0.5,
        max_retry_after_seconds=300,
    )
    assert expected == retry_plan(recovery)


def test_an_agents_queue() -> None:
    """The engine's own tools find it under the agent's name."""
    assert "agent.reader" == agent_queue("reader")
