"""The keys that callbacks are signed with: configured, or made once and kept."""

import base64
import os
import secrets
import tempfile
from pathlib import Path

from pydantic import SecretStr

from orchestrator.config import Settings
from orchestrator.errors import StartupError
from orchestrator.signing import PREFIX, key_of
from orchestrator.telemetry.logging import get_logger

FILE = "callbacks.secret"
"""In the data directory: the secret of an installation that has configured none."""

log = get_logger(__name__)


def are_there(settings: Settings) -> bool:
    """Whether workers of this configuration can sign; for an own engine they make a key."""
    return bool(_configured(settings)) or settings.temporal.is_embedded or _file(settings).exists()


def keys_of(settings: Settings) -> tuple[bytes, ...]:
    """The keys to sign with; none where that is not set up.

    With the embedded engine a secret is made on first use, and kept in the data directory.

    Raises:
        StartupError: the kept secret cannot be read, or not be written.
    """
    if configured := _configured(settings):
        return tuple(key_of(each.get_secret_value()) for each in configured)
    path = _file(settings)
    try:
        if settings.temporal.is_embedded and not path.exists():
            _make(path)
        return (key_of(path.read_text().strip()),) if path.exists() else ()
    except OSError as error:
        raise StartupError(f"The callbacks' secret {path}: {error.strerror}") from None
    except ValueError as error:
        raise StartupError(f"The callbacks' secret {path} is not one; allowed: {error}") from None


def _configured(settings: Settings) -> tuple[SecretStr, ...]:
    section = settings.callbacks
    return tuple(filter(None, (section.secret, *section.secrets)))


def _file(settings: Settings) -> Path:
    return settings.storage.data_dir / FILE


def _make(path: Path) -> None:
    """Write a new secret, whole or not at all; another process may be doing the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(PREFIX + base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
        os.link(name, path)
        log.info("callback_secret_made", file=str(path))
    except FileExistsError:
        return
    finally:
        Path(name).unlink()
