"""The agent that runs assertions given as data."""

from typing import Any, Literal

from pydantic import Field

from examples.agents.contract import Answer, Payload, Wish


class Assertion(Wish):
    """A value, an operator and what the value is held against."""

    name: str = Field("", max_length=200)
    actual: Any
    operator: Literal["equals", "differs", "contains", "less_than", "greater_than", "length"]
    expected: Any


class ChecksWish(Wish):
    """The assertions to run."""

    assertions: list[Assertion] = Field(min_length=1, max_length=1000)


def run_tests(payload: Payload) -> Answer:
    """Check each assertion; one that makes no sense fails with the reason."""
    assertions = ChecksWish.model_validate(payload).assertions
    results = [_result(number, assertion) for number, assertion in enumerate(assertions, start=1)]
    passed = sum(result["passed"] for result in results)
    return {
        "passed": passed,
        "failed": len(results) - passed,
        "results": results,
        "method": "the assertions of the payload, each compared once",
    }


def _result(number: int, assertion: Assertion) -> Answer:
    result: Answer = {"name": assertion.name or f"assertion {number}"}
    try:
        return result | {"passed": _holds(assertion)}
    except TypeError as error:
        return result | {"passed": False, "reason": str(error)}


def _holds(assertion: Assertion) -> bool:
    actual, expected = assertion.actual, assertion.expected
    match assertion.operator:
        case "equals":
            return bool(actual == expected)
        case "differs":
            return bool(actual != expected)
        case "contains":
            return bool(expected in actual)
        case "less_than":
            return bool(actual < expected)
        case "greater_than":
            return bool(actual > expected)
        case "length":
            return bool(len(actual) == expected)
