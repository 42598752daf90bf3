"""What an agent takes, what it gives, and how it refuses."""

from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

Payload: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]


class Refusal(Exception):
    """The agent understood the request and cannot serve it; the text tells the caller why."""

    status = 422


class NotShipped(Refusal):
    """The request names a document or lesson that does not exist."""

    status = 404


class Wish(BaseModel):
    """The fields of a payload that an agent looks at; the others are left alone."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


def explain(error: ValidationError) -> str:
    """Say in one line which fields of a payload are wrong, and how.

    Args:
        error: What pydantic found.

    Returns:
        The problems, each as ``field: what is expected``.
    """
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'payload'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )
