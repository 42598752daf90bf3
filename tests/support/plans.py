"""Plans, tasks and calls with defaults that tests need not repeat."""

from typing import Any

from orchestrator.models import AgentCall, Dispatch, Plan, RetryPlan, Task
from orchestrator.routing import agent_queue

AGENT = "reader"
PAYLOAD = {"file": "document.pdf"}


def retry(**changes: Any) -> RetryPlan:
    """The retries of the shipped configuration, without jitter."""
    defaults = {
        "max_attempts": 4,
        "initial_seconds": 1.0,
        "backoff": 2.0,
        "maximum_seconds": 60.0,
        "jitter": 0.0,
        "max_retry_after_seconds": 300.0,
    }
    return RetryPlan.model_validate(defaults | changes)


def plan(**changes: Any) -> Plan:
    """The route to the agent of the tests; retries are changed by ``retry=retry(...)``."""
    defaults = {
        "agent": AGENT,
        "endpoint": "/read",
        "task_queue": agent_queue(AGENT),
        "dispatch": Dispatch.QUEUED,
        "attempt_timeout": 30.0,
        "deadline": 3600.0,
        "priority": 3,
        "retry": retry(),
        "chosen_by": "exact pattern read",
    }
    return Plan.model_validate(defaults | changes)


def task(**changes: Any) -> Task:
    """A task whose plan is made of the changes."""
    return Task(pattern="read", payload=PAYLOAD, plan=plan(**changes))


def call(**changes: Any) -> AgentCall:
    """One call to the agent of the tests."""
    defaults = {
        "task_id": "3f1c9a52-6a2b-4f0e-9d3b-0c6a5a1c7e10",
        "agent": AGENT,
        "endpoint": "/read",
        "payload": PAYLOAD,
        "attempt_timeout": 5.0,
        "retry": retry(),
    }
    return AgentCall.model_validate(defaults | changes)
