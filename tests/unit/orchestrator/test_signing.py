"""Signatures that the official package verifies, and secrets that it takes."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from orchestrator.callbacks import message_id
from orchestrator.signing import key_of, signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of no service
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def headers(keys: list[bytes], name: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt."""
    return {
        "webhook-id": name,
        "webhook-timestamp": str(at),
        "webhook-signature": signature(keys, name, at, body),
    }


@given(st.text(min_size=1, max_size=50), st.dictionaries(st.text(), st.integers() | st.text()))
def test_the_official_package_verifies(callback_id: str, content: dict[str, object]) -> None:
    """Whatever the task's id is, and whatever is said."""
    body, now = json.dumps(content).encode(), int(datetime.now(UTC).timestamp())
    name = message_id(callback_id)
    assert content == Webhook(SECRET).verify(
        body.decode(), headers([key_of(SECRET)], name, now, body)
    )
    assert name.isascii()
    assert "." not in name


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_while_secrets_change_either_verifies(secret: str) -> None:
    """One signature by each, in their order."""
    now = int(datetime.now(UTC).timestamp())
    found = headers([key_of(OTHER), key_of(SECRET)], "a", now, b"{}")
    assert {} == Webhook(secret).verify("{}", found)
    assert 2 == len(found["webhook-signature"].split(" "))


def test_another_body_does_not_verify() -> None:
    """So the test above can fail."""
    now = int(datetime.now(UTC).timestamp())
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify('{"a":1}', headers([key_of(SECRET)], "a", now, b"{}"))


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "plain", SECRET.removeprefix("whsec_"), "whsec_c2hvcnQ=", "whsec_" + "A" * 200],
)
def test_a_secret_of_another_form_is_refused(secret: str) -> None:
    """In words that say how to make one."""
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        key_of(secret)


def test_the_example_of_the_docs_verifies() -> None:
    """As it stands there."""
    text = (Path(__file__).parents[3] / "docs/callbacks.md").read_text()
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)  # noqa: S102 - it is ours
    body = '{"type": "task.completed", "data": {"task_id": "a"}}'
    found = headers([key_of(SECRET)], "a", int(datetime.now(UTC).timestamp()), body.encode())
    assert 204 == names["on_callback"](body, found)
    assert 401 == names["on_callback"](body + " ", found)
