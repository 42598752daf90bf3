"""What agents that answer later may post: any JSON is one of the forms, or refused in words."""

from typing import Any

from fastapi.exceptions import RequestValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from api.completion_bodies import ERROR_CHARACTERS, LateReport
from api.requests import validated

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.integers(0, 2000).map(lambda n: "e\n" * n)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(["result", "error", "retryable", "retry_after", "progress", "message"])


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(FIELDS | st.text(max_size=5), JSON, max_size=3))
def test_any_object_is_a_report_or_refused(body: dict[str, Any]) -> None:
    """Exactly one of the three kinds; what went wrong is one line that can be shown."""
    try:
        report = validated(LateReport, body)
    except RequestValidationError as error:
        assert all(each["msg"] for each in error.errors())  # noqa: PT017
        return
    assert [report.kind] == [name for name in ("result", "error", "progress") if name in body]
    if report.kind == "error":
        assert len(report.words) <= ERROR_CHARACTERS
        assert report.words.isprintable()
