"""Where large payloads are kept: a directory, and a bucket of a real HTTP server."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.config import PayloadStorage
from orchestrator.engine.objects import Directory, Objects, objects_of
from orchestrator.errors import ObjectMissing, StartupError, StorageUnavailable
from tests.support.payloads import BUCKET, REGION, s3_server
from tests.support.stack import free_port

KEY = "default/task-1/20260115/" + "a" * 64


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """The server of the module's buckets."""
    with s3_server() as url:
        yield url


def bucket(url: str, name: str = BUCKET, prefix: str = "") -> PayloadStorage:
    """The configuration of a bucket there."""
    return PayloadStorage(type="s3", bucket=name, prefix=prefix, region=REGION, endpoint_url=url)


@pytest.fixture(params=["directory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """One of each kind."""
    if request.param == "directory":
        return objects_of(PayloadStorage(type="directory"), tmp_path)
    prefix = f"{tmp_path.name.replace('[', '-').replace(']', '-')}/"
    return objects_of(bucket(request.getfixturevalue("s3_url"), prefix=prefix), tmp_path)


def test_an_object_comes_back_as_it_was(objects: Objects) -> None:
    """Bytes of all kinds."""
    objects.check()
    data = bytes(range(256)) * 1000
    objects.put(KEY, data)
    assert data == objects.get(KEY)


def test_an_object_that_is_there_stays(objects: Objects) -> None:
    """The first one counts: equal keys have equal content."""
    objects.put(KEY, b"first")
    objects.put(KEY, b"second")
    assert b"first" == objects.get(KEY)


def test_a_key_may_have_all_that_keys_have(objects: Objects) -> None:
    """Escaped slashes among them."""
    key = "default/dead-letter%2F%C3%A4%2E%2E/20260115/" + "b" * 64
    objects.put(key, b"x")
    assert b"x" == objects.get(key)
    assert [(key, 1)] == list(objects.sizes("default/"))


def test_what_is_not_there_is_missing(objects: Objects) -> None:
    """And where it was looked for is told."""
    with pytest.raises(ObjectMissing, match="task-1") as caught:
        objects.get(KEY)
    assert objects.place in str(caught.value)


def test_objects_are_listed_and_deleted(objects: Objects) -> None:
    """Those of one namespace."""
    other = KEY.replace("default", "other")
    for key in (KEY, other):
        objects.put(key, b"12345")
    assert [(KEY, 5)] == list(objects.sizes("default/"))
    objects.delete(KEY)
    objects.delete(KEY)
    assert [] == list(objects.sizes("default/"))
    assert [(other, 5)] == list(objects.sizes("other/"))


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whoever else has an account on the machine."""
    root = tmp_path / "payloads"
    directory = Directory(root)
    directory.check()
    directory.put(KEY, b"x")
    assert [0, 0] == [path.stat().st_mode & 0o077 for path in (root, root / KEY)]


def test_a_deleted_file_leaves_no_empty_directories(tmp_path: Path) -> None:
    """But for the root."""
    directory = Directory(tmp_path)
    directory.put(KEY, b"x")
    directory.delete(KEY)
    assert [] == list(tmp_path.iterdir())


def test_drafts_of_writes_that_were_broken_off_go(tmp_path: Path) -> None:
    """When they are old; they are never listed."""
    directory = Directory(tmp_path)
    directory.put(KEY, b"x")
    old, new = tmp_path / ".old.draft", tmp_path / ".new.draft"
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    directory.tidy()
    assert not old.exists()
    assert new.exists()
    assert [(KEY, 1)] == list(directory.sizes(""))


def test_a_directory_that_cannot_be_one_stops_the_start(tmp_path: Path) -> None:
    """With the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="file cannot be written to: "):
        Directory(tmp_path / "file").check()


def test_a_bucket_that_is_not_there_stops_the_start(s3_url: str, tmp_path: Path) -> None:
    """It is not made by us."""
    with pytest.raises(StartupError, match="there is no bucket 'missing'"):
        objects_of(bucket(s3_url, "missing"), tmp_path).check()


def test_a_server_that_does_not_answer_is_told(s3_url: str, tmp_path: Path) -> None:
    """After some tries."""
    assert s3_url  # sets the credentials
    objects = objects_of(bucket(f"http://127.0.0.1:{free_port()}"), tmp_path)
    with pytest.raises(StorageUnavailable, match=f"s3://{BUCKET}/ does not answer"):
        objects.get(KEY)
