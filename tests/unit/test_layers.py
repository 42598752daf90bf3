"""Who may import whom, said a second time for what import-linter's layers do not name."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABOVE = {
    "orchestrator": {"activities", "workflows", "api", "worker", "examples"},
    "activities": {"workflows", "api", "worker", "examples"},
    "workflows": {"api", "worker", "examples"},
    "api": {"worker", "examples"},
    "examples": {"orchestrator", "activities", "workflows", "api", "worker"},
}


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_the_worker_does_not_import_the_api() -> None:
    """It runs where nobody serves HTTP."""
    assert not imported(ROOT / "worker.py") & {"api", "examples", "fastapi", "uvicorn"}


def test_the_worker_loads_no_api() -> None:
    """Nor does anything that it imports."""
    program = "import sys, worker; sys.exit(any(n in sys.modules for n in ('api', 'fastapi')))"
    assert 0 == subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT).returncode


@pytest.mark.parametrize("package", sorted(ABOVE))
def test_no_package_imports_what_is_above_it(package: str) -> None:
    """Imports go one way, and nothing imports the worker."""
    wrong = {
        str(path.relative_to(ROOT)): sorted(above)
        for path in (ROOT / package).rglob("*.py")
        if (above := imported(path) & ABOVE[package])
    }
    assert {} == wrong


def test_no_settings_are_read_at_import() -> None:
    """Importing every module needs no configuration, no engine and no environment."""
    program = (
        "import builtins, sys, importlib.util\n"
        "import worker, api.app, orchestrator.supervisor.command\n"
        "sys.exit('config.yaml' in ' '.join(sys.argv))"
    )
    environ = {"PATH": "/nowhere", "ORCHESTRATOR_CONFIG": "/nowhere/config.yaml"}
    result = subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT, env=environ)
    assert 0 == result.returncode
