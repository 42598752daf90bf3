"""The values that models share: numbers, names, times. Times are seconds."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

MIN_PRIORITY, DEFAULT_PRIORITY, MAX_PRIORITY = 1, 3, 5
MAX_TIMEOUT_SECONDS = 30 * 24 * 3600.0


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul", "A NUL character cannot be kept; leave it out")
    return text


# To JSON 2.0 is the same number as 2.
WholeNumber = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
Flag = Annotated[bool, Field(strict=True)]
Priority = Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS, allow_inf_nan=False, strict=True)]
# Far beyond any use, and within what the engine and datetime can count.
Duration = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
WithoutNul = Annotated[
    str, Field(json_schema_extra={"pattern": r"^[^\x00]*$"}), AfterValidator(_without_nul)
]
"""What the engine is to find things by: PostgreSQL, where it may keep them, has no NUL.

It is told in words; the schema says it by a pattern.
"""
Name = Annotated[WithoutNul, Field(min_length=1, max_length=200)]
# The engine's fairness key holds at most 64 bytes.
Tenant = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.@:-]+$")]
