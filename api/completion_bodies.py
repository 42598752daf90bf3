"""What agents that answer later post: one of a result, an error and progress."""

import json
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from orchestrator.models import Model
from orchestrator.values import Seconds

ERROR_CHARACTERS = 1000

Kind = Literal["result", "error", "progress"]


class LateReport(Model):
    """The body of POST /completions/{token}: one of ``result``, ``error`` and ``progress``."""

    result: Any = Field(default=None, description="Any JSON, null too: the task's result")
    error: str | dict[str, Any] | None = Field(
        default=None, description="What went wrong; of an object its `message` is shown"
    )
    retryable: bool = Field(
        default=False, description="With `error`: whether another call may succeed"
    )
    retry_after: Seconds | None = Field(
        default=None, description="With `retryable`: seconds until that call"
    )
    progress: Any = Field(default=None, description="Any JSON, shown by GET /status")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = self.model_fields_set
        kinds = given & {"result", "error", "progress"}
        if len(kinds) != 1:
            raise ValueError("send exactly one of result, error and progress")
        if "error" not in kinds and given & {"retryable", "retry_after"}:
            raise ValueError("retryable and retry_after go with an error")
        if "error" in kinds and self.error is None:
            raise ValueError("say what went wrong, as text or as an object")
        return self

    @property
    def kind(self) -> Kind:
        """Which of the three it is."""
        kinds: tuple[Kind, ...] = ("result", "error", "progress")
        return next(kind for kind in kinds if kind in self.model_fields_set)

    @property
    def words(self) -> str:
        """The error in one line."""
        error = self.error
        text = error.get("message", error) if isinstance(error, dict) else error
        text = text if isinstance(text, str) else json.dumps(text)
        plain = "".join(each if each.isprintable() else " " for each in text)
        return " ".join(plain.split())[:ERROR_CHARACTERS]
