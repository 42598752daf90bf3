"""JSON from outside, as strictly as everything behind it takes it."""

import math
import re
from typing import Any

from pydantic_core import from_json

LEVELS = 8
"""An answer may stand in an outcome, in a list, in a report, in a merged document by agent."""
_DEEPER = b"[" * LEVELS + b"%b" + b"]" * LEVELS
# Numbers that may be over 1.8e308: the parser makes infinity of them, which is not JSON.
# Digits are counted from the first of each run only, or long runs would be read again and again.
_HUGE = re.compile(rb"\d(?:[eE]\+?\d{3}|(?<!\d\d)\d{199})")

_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}


def kind_of(value: Any) -> str:
    """What a decoded value is, in JSON's words: "an array", "a number", "null"."""
    return _KINDS.get(type(value), "a number")


def decode(body: bytes | bytearray) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, holds a number beyond a float, or nests deeper than what the
            engine's converter can read when a model holds it.
    """
    try:
        # Within as many more as models may put around it.
        value = from_json(_DEEPER % bytes(body), allow_inf_nan=False)
        for _ in range(LEVELS):
            [value] = value  # nothing, or more than one value, is no JSON text
    except ValueError:
        from_json(body, allow_inf_nan=False)  # says what is wrong where, if it is that
        raise ValueError("nested too deep") from None
    if _HUGE.search(body) and _has_infinity(value):
        raise ValueError("number out of range")
    return value


def _has_infinity(value: Any) -> bool:
    rest = [value]
    while rest:
        each = rest.pop()
        if isinstance(each, dict):
            rest.extend(each.values())
        elif isinstance(each, list):
            rest.extend(each)
        elif isinstance(each, float) and math.isinf(each):
            return True
    return False
