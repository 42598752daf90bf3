"""Keys for products under test, made by the command."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from orchestrator.security.command import command


def make(file: Path, *options: str) -> dict[str, Any]:
    """A new key, by the command."""
    result = CliRunner().invoke(
        command, ["create", "--file", str(file), "--json", *options], catch_exceptions=False
    )
    found: dict[str, Any] = json.loads(result.stdout)
    return found
