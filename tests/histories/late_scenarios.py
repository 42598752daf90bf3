"""Courses of tasks whose agent answers later."""

from typing import Any

from orchestrator.models import Completion, Dispatch, LateRule, Task
from tests.support.agents import Reply
from tests.support.plans import PAYLOAD, plan, retry

ACCEPTED = Reply(status=202, headers={"Location": "/answer"})
QUICK = retry(initial_seconds=0.05, max_attempts=2)


def _task(late: LateRule, **changes: Any) -> Task:
    return Task(pattern="read_pdf", payload=PAYLOAD, plan=plan(retry=QUICK, late=late, **changes))


COURSES: dict[str, dict[str, Any]] = {
    "completed_polled": {
        "given": _task(LateRule(completion=Completion.POLL, poll_interval=0.05)),
        "replies": (ACCEPTED, Reply()),
    },
    "completed_after_late_timeout": {
        "given": _task(LateRule(answer_timeout=0.3)),
        "replies": (ACCEPTED, Reply()),
    },
    "failed_after_late_silence": {
        "given": _task(LateRule(progress_timeout=0.3), dispatch=Dispatch.INLINE),
        "replies": (ACCEPTED,),
    },
}
