"""What is prepared for the programs that stand for containers."""

import os
from pathlib import Path

import pytest

from deploy.local import programs
from deploy.local.topology import Topology


def test_the_databases_password_is_its_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a file is there that all may read."""
    monkeypatch.setattr(programs, "postgresql_programs", lambda: Path("/usr/bin"))
    # Its user need not be there: only root gives it the file.
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    topology = Topology("127.77.0", tmp_path, {"POSTGRES_PASSWORD": "secret"})
    file = tmp_path / "postgresql.password"
    file.touch(0o644)
    programs.postgresql(topology, topology.replicas["postgresql"][0])
    assert ("secret", 0o600) == (file.read_text(), file.stat().st_mode & 0o777)
