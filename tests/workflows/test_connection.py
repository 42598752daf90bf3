"""How our processes speak to the engine."""

import pytest
from temporalio.client import GrpcCompression

from orchestrator.config import Temporal
from orchestrator.engine.connect import connect


@pytest.mark.parametrize(
    ("section", "expected"),
    [({}, GrpcCompression.NONE), ({"compression": "gzip"}, GrpcCompression.GZIP)],
)
async def test_calls_are_compressed_as_configured(
    engine: Temporal, section: dict[str, str], expected: GrpcCompression
) -> None:
    """Those to an engine on this machine only where somebody wants it; both are answered."""
    client = await connect(Temporal.model_validate(engine.model_dump() | section), "tests")
    assert client.service_client.config.grpc_compression is expected
    assert (await client.count_workflows("WorkflowType = 'Nothing'")).count == 0
