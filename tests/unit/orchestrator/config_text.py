"""Writing and loading configurations in tests."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.config import Settings
from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError

AGENT = "agents: {reader: {instances: [{url: 'http://h:1'}]}}\n"
"""A valid line that configurations can begin with, so that rules have an agent."""


def load_text(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    """Load a configuration that consists of the text."""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ or {})


def refused(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The problems of a wrong configuration, without the folder."""
    with pytest.raises(ConfigurationError) as caught:
        load_text(folder, text, environ)
    return [str(each).replace(f"{folder}/", "") for each in caught.value.problems]
