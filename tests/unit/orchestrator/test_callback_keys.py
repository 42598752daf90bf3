"""Where the keys come from that callbacks are signed with."""

import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.callback_keys import FILE, are_there, keys_of
from orchestrator.config import Settings
from orchestrator.errors import StartupError
from orchestrator.signing import key_of
from tests.support.receivers import SECRET

OTHER = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def settings(directory: Path, address: str = "embedded", **callbacks: Any) -> Settings:
    """Of an installation with its data there."""
    return Settings.model_validate(
        {
            "storage": {"data_dir": directory},
            "temporal": {"address": address},
            "callbacks": callbacks,
        },
        strict=False,
    )


def test_the_new_secret_comes_first(tmp_path: Path) -> None:
    """Each signs, while receivers change from one to the other."""
    found = keys_of(settings(tmp_path, secret=SECRET, secrets=[OTHER]))
    assert (key_of(SECRET), key_of(OTHER)) == found
    assert (key_of(OTHER),) == keys_of(settings(tmp_path, secrets=[OTHER]))


def test_an_embedded_engine_gets_a_secret_that_stays(tmp_path: Path) -> None:
    """In a file that only its owner reads."""
    one = keys_of(settings(tmp_path / "data"))
    file = tmp_path / "data" / FILE
    assert [one] == [keys_of(settings(tmp_path / "data"))]
    assert 0o600 == file.stat().st_mode & 0o777
    assert [FILE] == [each.name for each in file.parent.iterdir()]
    assert one == keys_of(settings(tmp_path / "data", address="engine:7233"))


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    """Whichever comes first."""
    found: list[tuple[bytes, ...]] = []
    threads = [
        threading.Thread(target=lambda: found.append(keys_of(settings(tmp_path)))) for _ in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert 1 == len(set(found))
    assert 8 == len(found)


def test_a_cluster_needs_a_configured_one(tmp_path: Path) -> None:
    """Its workers are on several machines."""
    cluster = settings(tmp_path, address="engine:7233")
    assert () == keys_of(cluster)
    assert not are_there(cluster)
    assert are_there(settings(tmp_path, address="engine:7233", secret=SECRET))


def test_an_empty_secret_is_none(tmp_path: Path) -> None:
    """A variable may be there and say nothing."""
    assert not are_there(settings(tmp_path, address="engine:7233", secret="", secrets=[""]))


def test_a_file_that_holds_none_is_told(tmp_path: Path) -> None:
    """At the start, and not at the first callback."""
    (tmp_path / FILE).write_text("nothing")
    with pytest.raises(StartupError, match="is not one; allowed: whsec_"):
        keys_of(settings(tmp_path))
