"""JSON from outside: which numbers are taken, wherever they stand."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.json_text import decode

DIGITS = st.integers(1, 420).map(lambda count: "9" * count)
EXPONENTS = st.one_of(
    st.just(""),
    st.tuples(st.sampled_from(["e", "E", "e+", "E-", "e0", "e+00"]), st.integers(0, 420)).map(
        lambda parts: f"{parts[0]}{parts[1]}"
    ),
)
FRACTIONS = st.one_of(st.just(""), st.integers(1, 420).map(lambda count: "." + "0" * count))
AROUND = st.sampled_from(["%s", " %s ", "[1,%s]", '{"a":[%s,2]}', '["e1",-%s]'])


@given(DIGITS, FRACTIONS, EXPONENTS, AROUND)
def test_a_number_beyond_a_float_is_refused(
    digits: str, fraction: str, exponent: str, around: str
) -> None:
    """And no other, however it is written."""
    number = digits + fraction + exponent
    text = around % number
    is_float = bool(fraction or exponent)
    if is_float and math.isinf(float(number)):
        with pytest.raises(ValueError, match="number out of range"):
            decode(text.encode())
    else:
        assert json.loads(text) == decode(text.encode())


@pytest.mark.parametrize("text", ['"e999"', '"1e999"', '["%s"]' % ("7" * 999), '{"1e999":1}'])
def test_text_is_not_taken_for_a_number(text: str) -> None:
    """Whatever stands in it."""
    assert json.loads(text) == decode(text.encode())
