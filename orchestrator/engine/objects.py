"""Where large payloads are kept: files of a directory, or objects of an S3 bucket.

Both take the same keys, so that one can be copied to the other. Calls block; whoever makes them
has threads for it.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.config import PayloadStorage
from orchestrator.errors import ObjectMissing, StartupError, StorageUnavailable

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

CONNECTIONS = 8
"""Of a process, to a bucket."""
_PUT_TRIES = 5
_DRAFT, _DRAFT_SECONDS = ".draft", 86_400
_CONNECT_SECONDS, _READ_SECONDS = 5, 30


class Objects(Protocol):
    """A place for objects. Every method raises StorageUnavailable when it does not answer."""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        ...

    def check(self) -> None:
        """Make sure that it is there.

        Raises:
            StartupError: it is not.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Keep an object, durably and as a whole; one that is there stays as it is."""
        ...

    def get(self, key: str) -> bytes:
        """An object.

        Raises:
            ObjectMissing: there is none of that key.
        """
        ...

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The keys below a prefix, which ends with a slash, and how many bytes each has."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        ...

    def tidy(self) -> None:
        """Remove what writes have left that were broken off long ago."""
        ...


class Directory:
    """Files below a directory, which all processes share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def place(self) -> str:
        """Its path."""
        return str(self._root)

    def check(self) -> None:
        """Make the directory, and see that files can be written there."""
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = self._draft(self._root)
            draft.touch()
            draft.unlink()
        except OSError as error:
            raise StartupError(
                f"payloads.storage: {self._root} cannot be written to: {error.strerror}"
            ) from None

    def put(self, key: str, data: bytes) -> None:
        """Write a file under another name first."""
        path = self._root / key
        with self._answering():
            if path.exists():
                return
        for _ in range(_PUT_TRIES):
            # Between the two a clean-up may find the directory empty, and remove it.
            with contextlib.suppress(FileNotFoundError), self._answering():
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._write(path, data)
                return
        raise StorageUnavailable(f"The payload storage {self._root} loses what is written to it")

    def _write(self, path: Path, data: bytes) -> None:
        draft = self._draft(path.parent)
        try:
            with open(draft, "xb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    @staticmethod
    def _draft(parent: Path) -> Path:
        return parent / f".{secrets.token_hex(8)}{_DRAFT}"

    def get(self, key: str) -> bytes:
        """Read a file."""
        try:
            with self._answering():
                return (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(key, self.place) from None

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Walk through the files, drafts left out."""
        for parent, _, names in os.walk(self._root / prefix):
            for name in names:
                path = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):
                    if not name.startswith("."):
                        yield path.relative_to(self._root).as_posix(), path.stat().st_size

    def delete(self, key: str) -> None:
        """Unlink a file, and the directories above it that are empty then."""
        path = self._root / key
        with self._answering():
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for parent in path.relative_to(self._root).parents[:-1]:
                (self._root / parent).rmdir()

    def tidy(self) -> None:
        """Unlink old drafts."""
        long_ago = time.time() - _DRAFT_SECONDS
        for parent, _, names in os.walk(self._root):
            for name in names:
                path = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):
                    if name.endswith(_DRAFT) and path.stat().st_mtime < long_ago:
                        path.unlink()

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise StorageUnavailable(
                f"The payload storage {self._root} does not work: {error.strerror}"
            ) from error


class Bucket:
    """Objects of an S3 bucket, or of what speaks its protocol.

    Credentials are found as all AWS programs find them: environment, profile, role.

    Raises:
        StartupError: boto3 is not installed.
    """

    def __init__(self, section: PayloadStorage) -> None:
        assert section.bucket is not None  # noqa: S101 - the configuration sees to it
        self._bucket, self._prefix = section.bucket, section.prefix
        try:
            import boto3  # noqa: PLC0415 - an extra, for those who have a bucket
            from botocore.config import Config  # noqa: PLC0415
        except ImportError:
            raise StartupError(
                "payloads.storage.type s3 needs boto3: install the extra 's3' of this package"
            ) from None
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=section.endpoint_url,
            region_name=section.region,
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "max_attempts": 4},
                max_pool_connections=CONNECTIONS,
                s3={"addressing_style": "path"} if section.endpoint_url else {},
            ),
        )

    @property
    def place(self) -> str:
        """Its URL."""
        return f"s3://{self._bucket}/{self._prefix}"

    def check(self) -> None:
        """Ask for the bucket; that we may not ask for it as such is no mistake."""
        try:
            self._ask("head_bucket")
        except ObjectMissing:
            raise StartupError(f"payloads.storage: there is no bucket '{self._bucket}'") from None
        except StorageUnavailable as error:
            raise StartupError(f"payloads.storage: {error}") from None

    def put(self, key: str, data: bytes) -> None:
        """Upload an object, unless it is there."""
        try:
            self._ask("head_object", Key=self._prefix + key)
        except ObjectMissing:
            self._ask("put_object", Key=self._prefix + key, Body=data)

    def get(self, key: str) -> bytes:
        """Download an object."""
        data: bytes = self._ask("get_object", Key=self._prefix + key)
        return data

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """List the bucket page by page."""
        token: dict[str, str] = {}
        while True:
            page = self._ask("list_objects_v2", Prefix=self._prefix + prefix, **token)
            for each in page.get("Contents", ()):
                yield each["Key"].removeprefix(self._prefix), each["Size"]
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._ask("delete_object", Key=self._prefix + key)

    def tidy(self) -> None:
        """Objects are there as a whole or not at all."""

    def _ask(self, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        try:
            answer = getattr(self._client, operation)(Bucket=self._bucket, **arguments)
            return answer["Body"].read() if operation == "get_object" else answer
        except ClientError as error:
            raise self._explained(error, operation, arguments.get("Key", "")) from None
        except (BotoCoreError, OSError) as error:
            raise StorageUnavailable(
                f"The payload storage {self.place} does not answer: {error}"
            ) from None

    def _explained(self, error: "ClientError", operation: str, key: str) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code in {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}:
            return ObjectMissing(key.removeprefix(self._prefix), self.place)
        return StorageUnavailable(f"The payload storage {self.place} refuses {operation}: {code}")


def objects_of(section: PayloadStorage, data_dir: Path) -> Objects:
    """Where large payloads are kept by the configuration."""
    if section.type == "s3":
        return Bucket(section)
    return Directory(section.directory or data_dir / "payloads")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
