"""What the doctor says of keys and storage of payloads."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import doctor
from orchestrator.config import Settings
from orchestrator.doctor import Check, State, payloads
from orchestrator.engine.objects import Bucket
from orchestrator.errors import StorageUnavailable
from tests.support.payloads import BUCKET, REGION, new_key, s3_server
from tests.support.stack import free_port


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """The server of the module's bucket."""
    with s3_server() as url:
        yield url


def only_check(**section: Any) -> Check:
    """What is found of one of the two."""
    [check] = payloads(Settings.model_validate({"payloads": section}))
    return check


def stored(**storage: Any) -> Check:
    """What is found of a storage."""
    return only_check(storage=storage)


def in_bucket(url: str, name: str = BUCKET) -> Check:
    """What is found of a bucket."""
    return stored(type="s3", bucket=name, region=REGION, endpoint_url=url)


def test_where_nothing_is_configured_nothing_is_checked() -> None:
    """As it is out of the box."""
    assert [] == list(payloads(Settings()))


def test_keys_are_told_by_their_ids(tmp_path: Path) -> None:
    """Which encrypts; no secret is shown."""
    first, second = new_key("new"), new_key("old")
    file = tmp_path / "payload.keys"
    file.write_text(f"{first}\n{second}\n")
    check = only_check(encryption={"keys_file": str(file)})
    assert (State.OK, "key 'new' encrypts, 1 more to read by") == (check.state, check.found)
    idle = only_check(encryption={"keys": (first,), "encrypt": False})
    assert "would encrypt" in idle.found


@pytest.mark.parametrize(
    ("content", "told"), [(None, "cannot be read"), ("nonsense", "payload.keys:1 holds no key")]
)
def test_keys_that_cannot_be_read_are_a_failure(
    tmp_path: Path, content: str | None, told: str
) -> None:
    """It says which file, and why."""
    file = tmp_path / "payload.keys"
    if content is not None:
        file.write_text(content)
    check = only_check(encryption={"keys_file": str(file)})
    assert (State.FAIL, True) == (check.state, told in check.found)


def test_a_directory_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    """What was written is removed."""
    check = stored(type="directory", directory=str(tmp_path))
    assert (State.OK, True) == (check.state, str(tmp_path) in check.found)
    assert [] == [each for each in tmp_path.rglob("*") if each.is_file()]


def test_a_directory_is_not_made(tmp_path: Path) -> None:
    """It would belong to whoever runs the doctor."""
    check = stored(type="directory", directory=str(tmp_path / "payloads"))
    assert (State.WARN, False) == (check.state, (tmp_path / "payloads").exists())


def test_a_directory_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    """Found before the first large payload is lost."""
    tmp_path.chmod(0o500)
    # Root may write everywhere but where the kernel keeps the files.
    directory = tmp_path if os.geteuid() else Path("/proc")
    assert State.FAIL is stored(type="directory", directory=str(directory)).state


def test_a_file_in_the_directorys_place_is_a_failure(tmp_path: Path) -> None:
    """Nothing can be written there."""
    file = tmp_path / "payloads"
    file.touch()
    assert State.FAIL is stored(type="directory", directory=str(file)).state


def test_a_bucket_is_tried(s3_url: str) -> None:
    """Written, read, and removed."""
    check = in_bucket(s3_url)
    assert (State.OK, f"s3://{BUCKET}/ can be written, read and deleted") == (
        check.state,
        check.found,
    )


def test_a_bucket_that_nothing_can_be_deleted_from_is_a_warning(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks go well; the clean-up does not."""

    def refuse(*_: object) -> None:
        raise StorageUnavailable("refused")

    monkeypatch.setattr(Bucket, "delete", refuse)
    check = in_bucket(s3_url)
    assert (State.WARN, True) == (check.state, doctor._PROBE in check.advice)


def test_a_bucket_that_is_not_there_is_a_failure(s3_url: str) -> None:
    """As is a server that does not answer."""
    assert (State.FAIL, True) == (
        (found := in_bucket(s3_url, "missing")).state,
        "there is no bucket 'missing'" in found.found,
    )
    assert State.FAIL is in_bucket(f"http://127.0.0.1:{free_port()}").state
