"""OrchestrateTask as a careless change might leave it."""

import asyncio
from typing import Any

from temporalio import workflow


@workflow.defn(name="OrchestrateTask")
class SleepsFirst:
    """Does what no recorded history holds."""

    @workflow.run
    async def run(self, _: Any = None) -> None:
        """Start with a timer."""
        await asyncio.sleep(60)
