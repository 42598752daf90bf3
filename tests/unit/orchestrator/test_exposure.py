"""To whom the API listens, and whom it asks who they are."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from orchestrator.api_command import explained
from orchestrator.client import NotAllowed
from orchestrator.config import Settings
from orchestrator.doctor import State, access
from orchestrator.errors import StartupError
from orchestrator.security.exposure import check_exposure, is_local_only, is_nobodys
from tests.support.keys import make

EVERYWHERE = "0.0.0.0"  # noqa: S104 - not listened on here
JWT = {"issuer": "https://id", "audience": "a", "jwks": "https://id/jwks.json"}


def settings(host: str, **security: object) -> Settings:
    """Those of an API on that host."""
    return Settings.model_validate({"agent": {"host": host}, "security": security})


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "10.0.0.7", "api.internal"])
def test_nobody_listens_beyond_this_machine_by_default(host: str) -> None:
    """The error says what may be done."""
    with pytest.raises(StartupError, match=r"keys_file.*127\.0\.0\.1.*allow_anonymous"):
        check_exposure(settings(host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_is_not_asked(host: str) -> None:
    """Nor warned of."""
    with capture_logs() as lines:
        check_exposure(settings(host))
    assert [] == lines


@pytest.mark.parametrize("security", [{"keys_file": "keys.yaml"}, {"jwt": JWT}])
def test_whoever_is_asked_may_come_from_anywhere(security: dict[str, object]) -> None:
    """With keys or with tokens."""
    with capture_logs() as lines:
        check_exposure(settings(EVERYWHERE, **security))
    assert [] == lines


def test_an_api_that_is_open_to_everybody_says_so() -> None:
    """It was wanted, and stands in the log at each start."""
    with capture_logs() as lines:
        check_exposure(settings(EVERYWHERE, allow_anonymous=True))
    assert [("api_asks_nobody", "warning")] == [
        (each["event"], each["log_level"]) for each in lines
    ]


@pytest.mark.parametrize("security", [{"keys_file": "keys.yaml"}, {"jwt": JWT}])
def test_nobody_is_both_asked_and_not(security: dict[str, object]) -> None:
    """So that no leftover opens, or seems to open, what keys close."""
    with pytest.raises(ValidationError, match="leave one of them out"):
        settings("127.0.0.1", allow_anonymous=True, **security)


@pytest.mark.parametrize(
    ("security", "expected"),
    [({}, True), ({"allow_anonymous": True}, False), ({"jwt": JWT}, False)],
)
def test_an_api_that_asks_nobody_relies_on_being_local(
    security: dict[str, object],
    expected: bool,  # noqa: FBT001
) -> None:
    """Unless something before it asks."""
    assert expected == is_local_only(settings("127.0.0.1", **security))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]:80",
        "10.0.0.7",
        "LocalHost:80",
        "localhost.",
        "a.localhost",
    ],
)
def test_no_site_can_have_these_for_a_name(host: str) -> None:
    """They lead to this machine, or are found without asking anybody."""
    assert is_nobodys(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:80",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1@evil.example",
        "[",
        "",
    ],
)
def test_any_other_name_may_be_a_sites(host: str) -> None:
    """However much it looks like one of this machine's."""
    assert not is_nobodys(host)


@pytest.mark.parametrize(
    ("host", "security", "state", "found"),
    [
        ("127.0.0.1", {}, State.OK, "only this machine"),
        (EVERYWHERE, {"allow_anonymous": True}, State.WARN, "may do everything"),
        (EVERYWHERE, {}, State.FAIL, "will not listen"),
        (EVERYWHERE, {"jwt": JWT}, State.OK, "tokens of https://id"),
        (EVERYWHERE, {"keys_file": "/nowhere/keys.yaml"}, State.FAIL, "no such file"),
    ],
)
def test_the_doctor_tells_who_may_use_the_api(
    host: str, security: dict[str, object], state: State, found: str
) -> None:
    """What stands open to everybody is to be mended, or at least known."""
    check = access(settings(host, **security))
    assert (state, True) == (check.state, found in check.found)
    assert (state is State.OK) == (not check.advice)


def test_the_doctor_counts_the_keys_in_force(tmp_path: Path) -> None:
    """A file of expired ones lets nobody in."""
    file = tmp_path / "keys.yaml"
    make(file, "--name", "old", "--tenant", "acme", "--expires", "0s")
    assert State.WARN is access(settings(EVERYWHERE, keys_file=str(file))).state
    make(file, "--name", "new", "--tenant", "acme")
    check = access(settings(EVERYWHERE, keys_file=str(file)))
    assert (State.OK, "1 of 2 keys in force") == (check.state, check.found)


@pytest.mark.parametrize(("key", "told"), [(None, True), ("ork_x", False)])
def test_a_command_without_a_key_is_told_where_one_goes(
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
    told: bool,  # noqa: FBT001
) -> None:
    """Into the environment."""
    monkeypatch.delenv("ORCHESTRATOR_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("ORCHESTRATOR_API_KEY", key)
    assert told == ("ORCHESTRATOR_API_KEY" in explained(NotAllowed(401, "Say who you are")))
