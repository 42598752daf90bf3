"""What travels while an agent's late answer is waited for."""

from datetime import datetime
from typing import Any

from orchestrator.models import Accepted, Internal, Progress


class AnswerWait(Internal):
    """The argument of the activities that wait for a late answer, until then at the latest."""

    task_id: str
    agent: str
    accepted: Accepted
    until: datetime
    interval: float | None = None


class LateProgress(Internal):
    """What is known while a late answer is waited for; the agent may have said something of it."""

    progress: Progress
    until: datetime
    said: Any = None


class LateAnswer(Internal):
    """The result of the activities that wait for a late answer."""

    result: Any


class LateFailure(Internal):
    """What a late failure carries: whether, and after how many seconds, another call may help."""

    retryable: bool = False
    retry_after: float | None = None
