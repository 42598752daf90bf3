"""Keys as the configuration writes them."""

import base64
import json
from pathlib import Path

import pytest

from orchestrator.config_file import load
from orchestrator.encryption_keys import EncryptionKey
from orchestrator.engine.payloads import keys_of
from orchestrator.errors import ConfigurationError, StartupError
from tests.support.payloads import new_key


def keys(tmp_path: Path, text: str) -> list[str]:
    """The ids of the keys that a file holds."""
    path = tmp_path / "keys"
    path.write_text(text)
    settings = load(None, {"ORCHESTRATOR_PAYLOADS__ENCRYPTION__KEYS_FILE": str(path)})
    return [key.id for key in keys_of(settings.payloads.encryption)]


def test_a_key_has_an_id_and_32_bytes() -> None:
    """In base64, behind a colon."""
    key = EncryptionKey.of("2026-01:" + base64.b64encode(b"k" * 32).decode() + "\n")
    assert ("2026-01", b"k" * 32) == (key.id, key.secret)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k1",
        "k1:",
        ":" + base64.b64encode(b"k" * 32).decode(),
        "k1:" + base64.b64encode(b"k" * 16).decode(),
        "k1:not base64 at all",
        "k/1:" + base64.b64encode(b"k" * 32).decode(),
    ],
)
def test_what_is_no_key_is_told_without_being_repeated(text: str) -> None:
    """The error says what is allowed, and how to make a key."""
    with pytest.raises(ValueError, match="openssl rand -base64 32") as caught:
        EncryptionKey.of(text)
    assert not text or text not in str(caught.value)


def test_a_keys_text_hides_its_secret() -> None:
    """In logs and tracebacks too."""
    text = new_key("k1")
    assert text.removeprefix("k1:") not in repr(EncryptionKey.of(text))


def test_keys_come_from_the_environment() -> None:
    """One by its number, or all as a list; what nobody has set is none."""
    first, second = new_key("k1"), new_key("k2")
    name = "ORCHESTRATOR_PAYLOADS__ENCRYPTION__KEYS"
    numbered = load(None, {f"{name}__0": first, f"{name}__1": second, f"{name}__2": ""})
    listed = load(None, {name: json.dumps([first, second])})
    for settings in (numbered, listed):
        assert ["k1", "k2"] == [key.id for key in keys_of(settings.payloads.encryption)]


@pytest.mark.parametrize("form", ["keys: '{}x'", "keys: ['{}x']", "keys: {{a: '{}x'}}"])
def test_a_wrong_key_is_not_shown(tmp_path: Path, form: str) -> None:
    """Not even where it stands in place of a list."""
    key = new_key("k1")
    path = tmp_path / "config.yaml"
    path.write_text("payloads: {encryption: {" + form.format(key) + "}}")
    with pytest.raises(ConfigurationError, match=r"payloads\.encryption\.keys") as caught:
        load(path, {})
    assert key not in str(caught.value)


def test_a_file_has_a_key_on_each_line(tmp_path: Path) -> None:
    """In the order of their use; comments and empty lines are left out."""
    text = f"# since January\n{new_key('k2')}\n\n{new_key('k1')}\n"
    assert ["k2", "k1"] == keys(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no key"),
        ("k1:short\n", r"keys:1 holds no key; allowed: ID:KEY"),
        ("k1:ä", "cannot be read: not ASCII text"),
        ("k1:" + "A" * 43 + "=\nk1:" + "B" * 42 + "A=", "two keys have the id 'k1'"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str, problem: str) -> None:
    """It names file and line, and shows no key."""
    with pytest.raises(StartupError, match=problem):
        keys(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is told at the start."""
    name = "ORCHESTRATOR_PAYLOADS__ENCRYPTION__KEYS_FILE"
    settings = load(None, {name: str(tmp_path / "none")})
    with pytest.raises(StartupError, match="none cannot be read: No such file"):
        keys_of(settings.payloads.encryption)
