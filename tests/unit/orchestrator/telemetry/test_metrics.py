"""What is counted, and what Prometheus gets to read of it."""

import http.client
import socket

import pytest
from prometheus_client import generate_latest

from orchestrator.errors import StartupError
from orchestrator.telemetry import metrics
from orchestrator.telemetry.exposition import CONTENT_TYPE, Exposition, serving
from tests.support.metrics import Metrics
from tests.support.stack import free_port


def counted() -> Metrics:
    """What this process has counted."""
    return Metrics.of([generate_latest().decode()])


def asked(port: int, path: str) -> tuple[int, str | None, str]:
    """Status, kind and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()
    finally:
        connection.close()


def test_a_callback_is_counted_by_its_outcome_with_its_duration() -> None:
    """Two deliveries of which one fails."""
    before = counted()
    metrics.callback_delivery("delivered", 0.2)
    metrics.callback_delivery("failed", 1.5)
    after = counted()

    name = "orchestrator_callback_deliveries_total"
    for outcome in ("delivered", "failed"):
        assert before.value(name, outcome=outcome) + 1 == after.value(name, outcome=outcome)
    sums = [
        each.value("orchestrator_callback_delivery_duration_seconds_sum")
        for each in (before, after)
    ]
    assert sums[0] + 1.7 == pytest.approx(sums[1])


def test_a_call_that_by_the_clocks_went_out_before_it_was_due_waited_for_nothing() -> None:
    """Clocks of two machines differ; no histogram goes backwards."""
    metrics.dispatch("hasty_agent", -3.0)
    assert 0.0 == counted().value("orchestrator_dispatch_duration_seconds_sum", agent="hasty_agent")


def test_the_port_serves_the_metrics_and_nothing_else() -> None:
    """Also while the engine's client tells nothing."""
    port = free_port()
    with serving(Exposition(), "127.0.0.1", port):
        found = asked(port, "/metrics")
        other = asked(port, "/elsewhere")

    assert (200, CONTENT_TYPE) == found[:2]
    assert "orchestrator_build_info" in found[2]
    assert 404 == other[0]


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    """Two processes of one machine cannot share one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(StartupError, match=rf"Port {port} .* monitoring\.metrics_port"),
            serving(Exposition(), "127.0.0.1", port),
        ):
            pass
