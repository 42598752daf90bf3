"""What travels in a plan: endpoints, fallbacks, dispatch, weights, dead letters."""

from typing import Any

import pytest

from orchestrator.models import Dispatch, Plan, Route
from tests.unit.orchestrator.test_routing import plan, routes

HERE, THERE = "http://h:1", "http://z:1"
QUEUE = {"rate_limit": {"mode": "queue"}}


def planned(rule: dict[str, Any], agents: dict[str, Any] | None = None, **settings: Any) -> Plan:
    """The plan of the only rule, for agent0 unless it says otherwise."""
    return plan(routes({"pattern": "p"} | rule, agents=agents, **settings))


def at(*urls: str, **agent: Any) -> dict[str, Any]:
    """An agent's settings with these instances."""
    return {"instances": [{"url": url} for url in urls], **agent}


@pytest.mark.parametrize(
    ("endpoint", "instances", "expected"),
    [
        ("/read?x=1", [HERE, THERE], "/read?x=1"),
        (f"{HERE}/read/;a=1", [], "/read/;a=1"),
        (f"{HERE}/read", [HERE], "/read"),
        (HERE, [HERE], "/"),
        (f"{HERE}/", [HERE], "/"),
        (f"{HERE}/read", [HERE, THERE], f"{HERE}/read"),
        (f"{HERE}/read", [THERE], f"{HERE}/read"),
        (f"{HERE}/v2/read", [f"{HERE}/v2"], f"{HERE}/v2/read"),
    ],
)
def test_a_whole_url_of_an_agents_only_instance_is_its_path(
    endpoint: str, instances: list[str], expected: str
) -> None:
    """So instances that operators add are called too; elsewhere it names its instance itself."""
    result = planned({"endpoint": endpoint}, {"agent0": at(*instances)})
    assert expected == result.endpoint


def test_two_urls_of_an_agent_that_names_no_instances_stay_whole() -> None:
    """Each rule means its own."""
    rules = [
        {"pattern": name, "target_agent": "both", "endpoint": f"http://{name}:1/read"}
        for name in ("a", "b")
    ]
    chosen = routes(*rules)
    expected = ["http://a:1/read", "http://b:1/read"]
    assert expected == [plan(chosen, name).endpoint for name in ("a", "b")]


def test_fallbacks_are_routes_in_the_rules_order() -> None:
    """Each by its own queue, at the path of the rule, and as its own settings say."""
    agents = {"second": at(HERE, idempotent=False), "third": at(THERE)}
    rule = {"endpoint": "http://first:1/read", "fallback_agents": ["third", "second"]}
    result = planned(rule, agents)
    expected = (
        Route(agent="third", endpoint="/read", task_queue="agent.third"),
        Route(agent="second", endpoint="/read", task_queue="agent.second", idempotent=False),
    )
    assert expected == result.fallbacks
    assert ["agent0", "third", "second"] == [each.agent for each in result.routes]


def test_a_fallback_is_never_called_at_the_first_agents_address() -> None:
    """However its URL is written."""
    rule = {"endpoint": "HTTP://first:1/read", "fallback_agents": ["second"]}
    [fallback] = planned(rule, {"second": at(HERE)}).fallbacks
    assert "/read" == fallback.endpoint


def test_without_fallbacks_the_chosen_agent_is_the_only_one() -> None:
    """And nothing of them travels."""
    result = planned({})
    assert ("agent0",) == tuple(each.agent for each in result.routes)
    assert {"fallbacks", "fairness_weight", "dead_letter_expires"}.isdisjoint(
        result.model_fields_set
    )


@pytest.mark.parametrize(
    ("agent", "settings", "expected"),
    [
        ({}, {}, Dispatch.INLINE),
        ({"idempotent": False}, {}, Dispatch.QUEUED),
        (QUEUE, {}, Dispatch.QUEUED),
        ({"rate_limit": {"mode": "reject"}}, {}, Dispatch.INLINE),
        ({}, {"rate_limiting": {"mode": "queue"}}, Dispatch.QUEUED),
        (QUEUE, {"rate_limiting": {"enabled": False}}, Dispatch.INLINE),
    ],
)
def test_an_inline_call_must_not_pass_by_what_only_a_queue_does(
    agent: dict[str, Any], settings: dict[str, Any], expected: Dispatch
) -> None:
    """The engine meters the queue; and a crash may repeat an inline call."""
    result = planned({"dispatch": "inline"}, {"agent0": agent}, **settings)
    assert expected is result.dispatch


def test_an_agent_says_whether_it_may_be_called_twice() -> None:
    """The call goes by it."""
    result = planned({}, {"agent0": {"idempotent": False}})
    assert (False, True) == (result.idempotent, planned({}).idempotent)


def test_a_tenants_weight_travels_with_its_tasks() -> None:
    """Others weigh one."""
    chosen = routes({"pattern": "p"}, priority_queue={"tenant_weights": {"school": 3}})
    weights = [plan(chosen, tenant=name).fairness_weight for name in ("school", "other")]
    assert [3.0, 1.0] == weights


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (True, None)),
        ({"dead_letters": {"expire_after": 60}}, (True, 60.0)),
        ({"error_recovery": {"dead_letter_queue": False}}, (False, None)),
        (
            {
                "error_recovery": {"dead_letter_queue": False},
                "dead_letters": {"expire_after": 60},
            },
            (False, None),
        ),
    ],
)
def test_dead_letters_are_as_configured(
    settings: dict[str, Any], expected: tuple[bool, float | None]
) -> None:
    """Whether there are any, and for how long."""
    result = planned({}, **settings)
    assert expected == (result.dead_letter, result.dead_letter_expires)


def test_a_fallback_must_be_an_agent() -> None:
    """Which the configuration sees to; here it would be a plain error."""
    with pytest.raises(KeyError):
        planned({"fallback_agents": ["nobody"]})
