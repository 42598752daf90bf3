"""To whom the API listens, and whom it asks who they are."""

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from api.command import check_exposure
from orchestrator.config import Settings
from orchestrator.errors import StartupError

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
