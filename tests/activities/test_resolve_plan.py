"""The route of a task that came without one."""

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.resolve_plan import PlanResolver
from orchestrator.config import Agent, Instance, Rule, Settings
from orchestrator.models import Task
from orchestrator.routing import Routes

SETTINGS = Settings(
    agents={
        "reader": Agent(instances=(Instance(url="http://127.0.0.1:9"),), capabilities=("pdf",))
    },
    routing_rules=(Rule(pattern="read_pdf", target_agent="reader", endpoint="/read", timeout=7),),
)


async def test_the_plan_is_the_one_that_the_configuration_gives() -> None:
    """The same as at admission."""
    task = Task(pattern="read_pdf", payload={})
    resolver = PlanResolver(Routes(SETTINGS))
    plan = await ActivityEnvironment().run(resolver.resolve_plan, task)
    assert Routes(SETTINGS).plan(task) == plan


async def test_the_tasks_own_wishes_are_in_the_plan() -> None:
    """Priority and deadline of the task come before the rule's."""
    task = Task(pattern="read_pdf", payload={}, priority=5, timeout=60)
    resolver = PlanResolver(Routes(SETTINGS))
    plan = await ActivityEnvironment().run(resolver.resolve_plan, task)
    assert (5, 60.0, 7.0) == (plan.priority, plan.deadline, plan.attempt_timeout)


async def test_capabilities_serve_where_no_pattern_does() -> None:
    """The agent that has them all."""
    task = Task(capabilities=("pdf",), payload={})
    resolver = PlanResolver(Routes(SETTINGS))
    plan = await ActivityEnvironment().run(resolver.resolve_plan, task)
    assert ("reader", "capabilities pdf") == (plan.agent, plan.chosen_by)


async def test_an_unknown_pattern_is_permanent_and_names_the_closest() -> None:
    """No attempt would find a route."""
    resolver = PlanResolver(Routes(SETTINGS))
    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(resolver.resolve_plan, Task(pattern="read_pfd", payload={}))
    assert ("UnknownPattern", True, "Unknown pattern 'read_pfd'; did you mean 'read_pdf'?") == (
        caught.value.type,
        caught.value.non_retryable,
        caught.value.message,
    )
