"""The agent that finds personal data and secrets in a text."""

import re
from collections import Counter

from examples.agents.contract import Answer, Payload
from examples.agents.documents import Material

_MAX_FINDINGS = 1000
_SHOWN = 4
_PATTERNS = {
    "email": re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"),
    "card_number": re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])"),
    "aws_access_key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "github_token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    "private_key": re.compile(r"-----BEGIN (?:[A-Z]{1,20} ){0,3}PRIVATE KEY-----"),
}


def scan(payload: Payload) -> Answer:
    """Find e-mail addresses, payment card numbers and keys; answers show them masked."""
    text = Material.model_validate(payload).read()
    matches = sorted(
        (match.start(), match.end(), kind)
        for kind, pattern in _PATTERNS.items()
        for match in pattern.finditer(text)
        if kind != "card_number" or luhn(match[0])
    )
    return {
        "clean": not matches,
        "counts": dict(sorted(Counter(kind for _, _, kind in matches).items())),
        "findings": [
            {"kind": kind, "start": start, "end": end, "masked": _mask(text[start:end])}
            for start, end, kind in matches[:_MAX_FINDINGS]
        ],
        "method": "patterns of known formats; card numbers must also pass the Luhn check",
    }


def luhn(number: str) -> bool:
    """Check the last digit of a card number (ISO/IEC 7812-1, annex B; H. P. Luhn, 1960).

    Args:
        number: Digits; other characters are skipped.

    Returns:
        Whether the digits add up.
    """
    digits = [int(character) for character in reversed(number) if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _mask(found: str) -> str:
    return "*" * min(len(found) - _SHOWN, 12) + found[-_SHOWN:]
