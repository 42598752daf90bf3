"""A Python client of the API: ``OrchestratorClient``, and ``AsyncOrchestratorClient`` for asyncio.

with OrchestratorClient("http://127.0.0.1:8000") as client:
    task = client.submit("upload_pdf", {"file": "document.pdf"})
    print(client.wait(task.task_id, timeout=60).result)
"""

from orchestrator.client.asynchronous import AsyncOrchestratorClient
from orchestrator.client.errors import (
    ApiError,
    ApiUnreachable,
    ClientError,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    RateLimited,
    StillOpen,
    Unavailable,
    UnexpectedAnswer,
)
from orchestrator.client.events import Event
from orchestrator.client.synchronous import OrchestratorClient

__all__ = [
    "ApiError",
    "ApiUnreachable",
    "AsyncOrchestratorClient",
    "ClientError",
    "Conflict",
    "Event",
    "InvalidRequest",
    "NotAllowed",
    "NotFound",
    "OrchestratorClient",
    "RateLimited",
    "StillOpen",
    "Unavailable",
    "UnexpectedAnswer",
]
