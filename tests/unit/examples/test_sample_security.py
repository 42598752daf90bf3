"""What the sample agent for security finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.agents.security import luhn, scan


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ada.l@mail.example.com", "email"),
        ("card 4111-1111-1111-1111.", "card_number"),
        ("AKIAIOSFODNN7EXAMPLE", "aws_access_key"),
        ("ghp_" + "a" * 36, "github_token"),
        ("-----BEGIN RSA PRIVATE KEY-----", "private_key"),
    ],
)
def test_scan_finds(text: str, kind: str) -> None:
    """Each known kind is found where it stands."""
    assert {kind: 1} == scan({"text": f"See {text}"})["counts"]


@pytest.mark.parametrize("text", ["4111 1111 1111 1112", "a@b", "12345", "plain text"])
def test_scan_finds_nothing_in_clean_text(text: str) -> None:
    """A number that fails the Luhn check is no card."""
    assert scan({"text": text})["clean"]


def test_scan_never_repeats_a_secret() -> None:
    """Findings are masked."""
    assert "4111" not in str(scan({"text": "4111 1111 1111 1111"})["findings"])


@given(st.text("0123456789", min_size=12, max_size=18))
def test_luhn_accepts_exactly_one_last_digit(digits: str) -> None:
    """Every number has one check digit."""
    expected = [True]
    assert expected == [luhn(digits + last) for last in "0123456789" if luhn(digits + last)]
