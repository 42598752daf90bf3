"""What all tests share: properties are not timed, since the machine may be busy."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from deploy.local.programs import temporal_server

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Where CI is set, Hypothesis has its own profile loaded, which also draws the same every time.
if "CI" not in os.environ:
    settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The topology that end-to-end tests run against."""
    parser.addoption(
        "--topology",
        choices=("run", "production"),
        default="run",
        help="what end-to-end tests run against: `orchestrator run`, or that of docker-compose.yml",
    )


@pytest.fixture(scope="module", autouse=True)
def _measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the product's processes out of the coverage, but those of ``measured`` modules.

    It makes a start of the product cost more than half as much again, and most modules that start
    one run the same lines. What is started for the whole session, for the dashboard, counts too.
    """
    marked = request.node.get_closest_marker
    with pytest.MonkeyPatch.context() as patch:
        if marked("e2e") and not marked("measured"):
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


def pytest_report_header(config: pytest.Config) -> str | None:
    """Which engine the production topology has here."""
    if config.getoption("topology") == "run":
        return None
    engine = "Temporal's server on PostgreSQL" if temporal_server() else "the development server"
    return f"topology: production, on {engine}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what tells of `orchestrator run`, or starts its own, in another topology."""
    if config.getoption("topology") == "run":
        return
    for item in items:
        if marker := item.get_closest_marker("own_topology"):
            item.add_marker(pytest.mark.skip(reason=f"production topology: {marker.args[0]}"))
