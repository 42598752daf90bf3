"""Live streams are bounded."""

from typing import Any
from unittest.mock import Mock

import pytest

from api.errors import answer
from orchestrator.engine.live_events import LiveEvents
from orchestrator.errors import StreamsFull


async def test_one_stream_too_many_is_refused() -> None:
    """With 503, and when to come again."""
    nobody: Any = None
    live = LiveEvents(Mock(), nobody, nobody, 1, most=0)
    with pytest.raises(StreamsFull) as refusal:
        await live.task("it", None)
    response = answer(nobody, refusal.value)
    assert (503, "5") == (response.status_code, response.headers["retry-after"])
