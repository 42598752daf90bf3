"""What histories hold is read as far as it can be."""

from temporalio.api.common.v1 import Payload

from orchestrator.batches import ChunkReport
from orchestrator.engine.converter import data_converter
from orchestrator.engine.reports import readable


async def test_a_chunk_that_was_lost_before_its_first_heartbeat_has_told_nothing() -> None:
    """The engine then hands on no payload at all."""
    assert await readable(data_converter, [], ChunkReport) is None


async def test_what_nobody_can_read_is_nothing() -> None:
    """Somebody sent it by hand."""
    odd = Payload(metadata={"encoding": b"json/plain"}, data=b"[")
    assert await readable(data_converter, [odd], ChunkReport) is None
