"""What tasks have returned that ended in this process: reading their end needs no history."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from temporalio import worker, workflow
from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from orchestrator.engine.record import STATES
from orchestrator.models import Dispatch, Task, TaskOutcome, TaskState

MOST_RETURNED = 1000
MOST_CHARACTERS, MOST_VALUES = 2048, 64
"""Of an outcome that is kept: in all its texts, and values in all."""
FIRST_STEP_EVENTS = 3
"""Of a history whose first workflow task has begun: started, task scheduled, task started."""
_END_EVENTS = 4
"""With which a step ends at the most: its own end, a few markers, and the workflow's completion.

A step that is taken once more has five events or more before it ends.
"""


class Returned(worker.Interceptor):
    """The outcomes that workflows returned last in this process, by the engine's id of the run.

    What a workflow returned becomes its result only when the engine takes the end of that step. A
    step whose end it did not take is repeated, perhaps elsewhere, and an inline call with it, which
    may bring something else. So an outcome counts for a history that has ended with the step that
    returned it, as its length tells; and that of an inline call only from a first step, since from
    the second repetition on the length is the same.
    """

    def __init__(self, most: int = MOST_RETURNED) -> None:
        self._most = most
        self._outcomes: OrderedDict[str, tuple[int, TaskOutcome]] = OrderedDict()
        self._lock = threading.Lock()

    def workflow_interceptor_class(
        self,
        input: worker.WorkflowInterceptorClassInput,  # noqa: A002 - the base's name
    ) -> type[worker.WorkflowInboundInterceptor]:
        """Around each workflow, in the threads that carry them out."""
        del input
        keep = self.keep

        class Bound(worker.WorkflowInboundInterceptor):
            async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> Any:  # noqa: A002
                result = await super().execute_workflow(input)
                if isinstance(result, TaskOutcome) and not workflow.unsafe.is_replaying():
                    info = workflow.info()
                    events = info.get_current_history_length()
                    if events == FIRST_STEP_EVENTS or _is_queued(input.args):
                        keep(info.run_id, events, result)
                return result

        return Bound

    def keep(self, run_id: str, events: int, outcome: TaskOutcome) -> None:
        """Keep what a run returned in a step before which its history had so many events."""
        if not _is_small(outcome.result):
            return
        with self._lock:
            self._outcomes[run_id] = events, outcome
            self._outcomes.move_to_end(run_id)
            if len(self._outcomes) > self._most:
                self._outcomes.popitem(last=False)

    def take(self, info: WorkflowExecutionInfo) -> TaskOutcome | None:
        """The outcome of a run that the engine describes, if it is known; it is kept no longer."""
        with self._lock:
            events, outcome = self._outcomes.pop(info.execution.run_id, (0, None))
        if outcome is None or STATES.get(info.status) is not TaskState.COMPLETED:
            return None
        return outcome if 0 < info.history_length - events <= _END_EVENTS else None


def _is_queued(arguments: Sequence[Any]) -> bool:
    """Whether the calls of the task in a workflow's arguments are activities, as its plan says."""
    plan = arguments[0].plan if arguments and isinstance(arguments[0], Task) else None
    return plan is not None and plan.dispatch is not Dispatch.INLINE


def _is_small(value: Any) -> bool:
    """Whether it holds little; looks at no more than that."""
    characters, values, left = MOST_CHARACTERS, MOST_VALUES, [value]
    while left:
        value = left.pop()
        values -= 1
        if isinstance(value, str):
            characters -= len(value)
        elif isinstance(value, dict | list):
            if len(value) > values:
                return False
            if isinstance(value, dict):
                left.extend(value)
                left.extend(value.values())
            else:
                left.extend(value)
        if values < 0 or characters < 0:
            return False
    return True
