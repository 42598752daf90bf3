"""Requests that browsers send for pages of others are known as such."""

import pytest
from fastapi import Request

from api.security import _is_foreign


def request(**headers: str) -> Request:
    """One to api.example with these headers."""
    given = {"host": "api.example"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    pairs = [(name.encode(), value.encode()) for name, value in given.items()]
    return Request({"type": "http", "method": "POST", "headers": pairs})


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"origin": "https://api.example"}, False),
        ({"origin": "https://other.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://["}, True),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "none"}, False),
    ],
)
def test_a_page_of_another_site_is_foreign(headers: dict[str, str], foreign: bool) -> None:  # noqa: FBT001
    """Whatever it calls itself."""
    assert foreign == _is_foreign(request(**headers))
