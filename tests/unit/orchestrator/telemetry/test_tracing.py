"""Whether spans are made, and what they are."""

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from api.traced import _attributes
from orchestrator.errors import StartupError
from orchestrator.telemetry.spans import Spans, parsed, within, without_secrets, written
from orchestrator.telemetry.tracing import exporter, log_processors, tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Kept(SpanExporter):
    """Keeps what is exported."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep them."""
        self.spans += spans
        return SpanExportResult.SUCCESS


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "mine"}, None),
        (ENDPOINT, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, None),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, None),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "otlp"),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], expected: str | None) -> None:
    """An endpoint is enough; without any nothing is made."""
    assert expected == exporter(environ)
    assert (expected is not None) == bool(log_processors(environ))


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf only"),
    ],
)
def test_what_there_is_not_is_said(environ: dict[str, str], word: str) -> None:
    """By the variable's name, and what there is instead."""
    with pytest.raises(StartupError, match=word):
        exporter(environ)


async def test_without_the_variables_there_are_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor anything that could make some."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    async with tracing("api") as spans:
        assert spans is None


def test_who_does_not_trace_loads_nothing_of_it() -> None:
    """Neither the API nor the worker."""
    text = "import api.command, worker, sys; print('opentelemetry.sdk.trace' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True
    )
    assert "False" == process.stdout.strip()


def test_the_span_of_a_run_is_known_before_it_is_made() -> None:
    """Its children name it, in whichever process; it is told once it has ended."""
    kept = Kept()
    spans, others = Spans(kept, "worker"), Spans(Kept(), "worker")
    given = f"00-{TRACE}-{PARENT}-01"
    run, parent = spans.run_of("run-1", "task", given)
    assert run == others.run_of("run-1", "task", given)[0]
    with spans.span("child", SpanKind.INTERNAL, within(run), {}):
        pass
    began = datetime(2026, 1, 1, tzinfo=UTC)
    spans.whole("task", run, parent, (began, began + timedelta(seconds=90)), {}, "AgentFailed")
    spans.close()

    child, whole = kept.spans
    assert child.parent is not None
    assert whole.parent is not None
    assert (run.span_id, run.trace_id) == (child.parent.span_id, child.parent.trace_id)
    assert run == whole.get_span_context()
    assert (PARENT, TRACE) == (f"{whole.parent.span_id:016x}", f"{run.trace_id:032x}")
    assert 90e9 == (whole.end_time or 0) - (whole.start_time or 0)
    assert not whole.status.is_ok
    assert "orchestration-agent" == whole.resource.attributes["service.name"]


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
def test_a_trace_of_its_own_is_sampled_as_a_whole(
    sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls as the workflow, whose span comes last: by OTEL_TRACES_SAMPLER."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", f"parentbased_{sampler}")
    kept = Kept()
    spans = Spans(kept, "worker")
    run, parent = spans.run_of("run-1", "0af76519-16cd-43dd-8448-eb211c80319c", None)
    with spans.span("child", SpanKind.INTERNAL, within(run), {}):
        pass
    now = datetime.now(UTC)
    spans.whole("task", run, parent, (now, now), {}, None)
    spans.close()
    expected = [TRACE] * 2 if sampler == "always_on" else []
    contexts = [each.get_span_context() for each in kept.spans]
    assert expected == [f"{each.trace_id:032x}" for each in contexts if each]


@pytest.mark.parametrize("header", [None, "", "00-1-2-3", f"00-{'0' * 32}-{PARENT}-01"])
def test_what_is_no_trace_context_is_none(header: str | None) -> None:
    """A trace id of zeros is none either."""
    assert parsed(header) is None


def test_a_trace_context_is_written_as_it_was_read() -> None:
    """Of its flags the sampled one is kept."""
    context = parsed(f"00-{TRACE}-{PARENT}-03")
    assert context is not None
    assert f"00-{TRACE}-{PARENT}-01" == written(context)


def test_a_span_names_no_password_and_no_query() -> None:
    """They may be keys."""
    url = "http://user:secret@agent:8000/work?token=secret#secret"
    assert "http://agent:8000/work" == without_secrets(url)


def test_a_completion_url_is_no_part_of_a_span() -> None:
    """Who knows it may complete the task."""
    scope = {
        "type": "http",
        "path": "/completions/abc.def",
        "scheme": "http",
        "http_version": "1.1",
    }
    assert "/completions/{token}" == _attributes(scope, "POST")["url.path"]
