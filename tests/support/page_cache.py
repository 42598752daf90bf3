"""What the system holds of a file that has yet to reach the disk."""

import ctypes
import os
from pathlib import Path

import pytest

_CACHESTAT = 451
"""The call's number on x86 and ARM: Linux 6.5, cachestat(2)."""


class _Range(ctypes.Structure):
    """All of a file, as it is."""

    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Pages(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "in_writeback", "evicted", "recently_evicted")
    )


def needs_unwritten_pages(directory: Path) -> None:
    """Skip where nothing can be told of files in the directory, or nothing is held back."""
    probe = directory / "probe"
    probe.write_bytes(bytes(4096))
    if not unwritten_pages(probe):
        pytest.skip("this file system tells of no unwritten pages")


def unwritten_pages(path: Path) -> int:
    """Pages that were written and are not on the disk yet; skips where the system cannot tell."""
    pages = _Pages()
    with path.open("rb") as file:
        failed = ctypes.CDLL(None, use_errno=True).syscall(
            _CACHESTAT, file.fileno(), ctypes.byref(_Range()), ctypes.byref(pages), 0
        )
    if failed:
        pytest.skip(f"no count of unwritten pages here: {os.strerror(ctypes.get_errno())}")
    return int(pages.dirty + pages.in_writeback)
