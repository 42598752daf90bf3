"""Keys to encrypt payloads with, a storage of a bucket, and where a planted text is found."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.support.stack import free_port

BUCKET = "payloads"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
REGION = "us-east-1"


def new_key(name: str) -> str:
    """A key as the configuration has it."""
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


def holders_of(planted: str, directory: Path) -> list[str]:
    """The files below a directory in which the text is found."""
    return [
        str(path.relative_to(directory))
        for path in sorted(directory.rglob("*"))
        if path.is_file() and planted.encode() in _content(path)
    ]


def _content(path: Path) -> bytes:
    """Nothing of a file that has gone meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@contextmanager
def s3_server() -> Iterator[str]:
    """A real HTTP server that speaks S3, with one bucket; gives its URL."""
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in CREDENTIALS.items():
                patch.setenv(name, value)
            boto3.client("s3", endpoint_url=url, region_name=REGION).create_bucket(Bucket=BUCKET)
            yield url
    finally:
        server.stop()
