"""The command ``python -m examples.agents`` as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

COMMAND = [sys.executable, "-m", "examples.agents"]


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the agents on a free port, and give the process and its address."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, _address(process)
        finally:
            process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready: dict[str, Any] = json.loads(process.stdout.readline())
    expected = "ready"
    assert expected == ready["event"]
    return f"http://{ready['host']}:{ready['port']}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_command_quietly(number: signal.Signals) -> None:
    """Asked to stop, it exits with 0 and has nothing to complain about."""
    with running() as (process, address):
        httpx.get(f"{address}/caching_agent/health").raise_for_status()
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    expected = (0, "")
    assert expected == (process.returncode, errors)


def test_broken_off_answer_closes_the_connection() -> None:
    """A truncated body is seen as a broken connection, and leaves the server well."""
    with running() as (process, address):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{address}/caching_agent/cache", json={"_fault": {"body": "truncated"}})
        healthy = httpx.get(f"{address}/caching_agent/health").status_code
        process.terminate()
        _, errors = process.communicate(timeout=20)
    expected = (200, "")
    assert expected == (healthy, errors)


def test_requests_under_way_are_answered_on_stop() -> None:
    """Closing ends the wait of a fault and still answers its request."""
    with running() as (process, address), socket.create_connection(_pair(address)) as connection:
        body = json.dumps({"action": "get", "key": "k", "_fault": {"delay": 60}})
        head = f"POST /caching_agent/cache HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}\r\n{body}".encode())
        # Another answer shows that the server has read the request above.
        httpx.get(f"{address}/caching_agent/health").raise_for_status()
        process.terminate()
        answer = connection.makefile().readline()
        _, errors = process.communicate(timeout=20)
    expected = ("HTTP/1.1 200 OK\n", 0, "")
    assert expected == (answer, process.returncode, errors)


def _pair(address: str) -> tuple[str, int]:
    host, port = address.removeprefix("http://").split(":")
    return host, int(port)


def test_taken_port_is_one_clear_line() -> None:
    """Where another listens, the command says so and exits with 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = os.environ | {"SAMPLE_AGENTS_PORT": str(port)}
        done = subprocess.run(
            COMMAND, env=environment, capture_output=True, text=True, timeout=20, check=False
        )
    expected = f"sample agents: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert (1, expected) == (done.returncode, done.stderr)


def test_impossible_port_is_a_usage_error() -> None:
    """A port is a number up to 65535."""
    done = subprocess.run(
        [*COMMAND, "--port", "65536"], capture_output=True, text=True, timeout=20, check=False
    )
    expected = 2
    assert expected == done.returncode
