"""API keys: their form, the file, the command."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import orchestrator
from orchestrator.errors import StartupError
from orchestrator.security.key_file import LOOK_SECONDS, KeyFile, read
from orchestrator.security.keys import KEY_CHARACTERS, PREFIX, is_key, new_secret


def keys(*arguments: str) -> Result:
    """What ``orchestrator keys`` does."""
    return CliRunner().invoke(orchestrator, ["keys", *arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where keys are kept; nothing is there yet."""
    return tmp_path / "keys.yaml"


def create(file: Path, *options: str) -> dict[str, str]:
    """A new key as the command tells of it."""
    told = keys("create", "--name", "n", "--tenant", "t", "--file", str(file), "--json", *options)
    found: dict[str, str] = json.loads(told.stdout)
    return found


def test_a_key_has_a_prefix_and_a_checksum() -> None:
    """So that a slip of the pen is told from an unknown key."""
    secret = new_secret()
    assert (True, KEY_CHARACTERS) == (secret.startswith(PREFIX) and is_key(secret), len(secret))
    for place in range(len(PREFIX), len(secret)):
        other = "a" if secret[place] != "a" else "b"
        assert not is_key(secret[:place] + other + secret[place + 1 :])


@pytest.mark.parametrize("text", ["", PREFIX, "ork_" + "é" * 49, "x" * KEY_CHARACTERS])
def test_other_texts_are_no_keys(text: str) -> None:
    """Whatever they hold."""
    assert not is_key(text)


def test_the_file_is_its_owners_and_holds_no_key(file: Path) -> None:
    """Only the digest."""
    made = create(file)
    assert (0o600, False) == (file.stat().st_mode & 0o777, made["key"] in file.read_text())


def test_a_key_is_known_by_its_file(file: Path) -> None:
    """For the tenant and scopes that it was made for."""
    made = create(file, "--scope", "operate")
    caller = KeyFile(file).find(made["key"])
    assert caller is not None
    assert ("t", ("operate",)) == (caller.tenant, caller.scopes)


def test_a_changed_file_is_seen_after_a_moment(file: Path) -> None:
    """And not looked at before."""
    made = create(file)
    time = 0.0
    kept = KeyFile(file, lambda: time)
    keys("revoke", made["id"], "--file", str(file))
    assert kept.find(made["key"]) is not None
    time = LOOK_SECONDS
    assert kept.find(made["key"]) is None


def test_a_broken_file_leaves_the_keys_as_they_were(file: Path) -> None:
    """A slip while editing locks nobody out."""
    made = create(file)
    time = 0.0
    kept = KeyFile(file, lambda: time)
    file.write_text("keys: [")
    time = LOOK_SECONDS
    assert kept.find(made["key"]) is not None


def test_a_rotated_key_has_both_secrets_for_its_grace(file: Path) -> None:
    """And without a grace the new one alone."""
    first = create(file)
    told = keys("rotate", first["id"], "--grace", "1h", "--file", str(file), "--json")
    second = json.loads(told.stdout)["key"]
    kept = KeyFile(file)
    assert kept.find(first["key"]) is not None
    assert kept.find(second) is not None
    third = json.loads(keys("rotate", first["id"], "--file", str(file), "--json").stdout)["key"]
    kept = KeyFile(file)
    assert [True, True, False] == [
        kept.find(each) is None for each in (first["key"], second, third)
    ]


def test_an_expired_key_is_not_taken(file: Path) -> None:
    """From that very second on."""
    made = create(file, "--expires", "1s")
    [key] = read(file).keys
    assert key.expires_at is not None
    assert [True, False] == [
        key.takes(key.sha256, moment)
        for moment in (key.expires_at - timedelta(seconds=1), key.expires_at)
    ]
    assert made["state"] == "active"
    assert "expired" == key.state(datetime.now(UTC) + timedelta(days=1))


def test_the_list_shows_no_secrets(file: Path) -> None:
    """Nobody has them."""
    made = create(file)
    for options in ((), ("--json",)):
        told = keys("list", "--file", str(file), *options).output
        assert (True, False) == (made["id"] in told, made["key"] in told)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("keys: [", "not YAML"),
        ("keys: [{expires_at: 2026-13-45T00:00:00Z}]", "not YAML: month must be in 1..12"),
        ("keys: [{id: key_00000000}]", "keys.0.name"),
        ("other: 1", "other"),
        ("- 1", "file"),
    ],
)
def test_a_wrong_file_is_told_in_a_line(file: Path, text: str, reason: str) -> None:
    """Where, and what."""
    file.write_text(text)
    with pytest.raises(StartupError, match=reason) as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told_with_the_command_that_makes_it(file: Path) -> None:
    """As whoever sets it up first meets it."""
    told = keys("list", "--file", str(file))
    assert (1, True) == (told.exit_code, "orchestrator keys create" in told.output)


@pytest.mark.parametrize(
    "options",
    [
        ("--tenant", "a b"),
        ("--tenant", "t", "--expires", "soon"),
        ("--tenant", "t", "--scope", "all"),
        ("--tenant", "t", "--expires", "999999d", "--expires", "999999d"),
    ],
)
def test_wrong_options_are_told(file: Path, options: tuple[str, ...]) -> None:
    """And nothing is written, but for what ends in due time."""
    told = keys("create", "--name", "n", "--file", str(file), *options)
    assert told.exit_code in {0, 2}
    assert (told.exit_code == 0) == file.exists()


def test_a_place_that_cannot_be_written_is_told() -> None:
    """Not even by root, where these tests may be run by it."""
    told = keys("create", "--name", "n", "--tenant", "t", "--file", "/proc/keys.yaml")
    assert (1, True) == (told.exit_code, "cannot be written" in told.output)
