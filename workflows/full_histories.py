"""When a run's history is full, so that a new run carries on."""

from temporalio import workflow

FULL_EVENTS = 20_000
FULL_BYTES = 16 * 1024 * 1024
"""A history with children is full then; before that it is carried on once they have ended."""
MAX_EVENTS = 40_000
"""A history that is carried on even if the engine suggests nothing."""


def is_full(children: int) -> bool:
    """Whether one with so many open children is, which another run could not follow."""
    info = workflow.info()
    if not info.is_continue_as_new_suggested():
        return False
    # Children may wait for long.
    return (
        not children
        or info.get_current_history_length() > FULL_EVENTS
        or info.get_current_history_size() > FULL_BYTES
    )


def is_full_anyhow() -> bool:
    """Whether one without children is."""
    info = workflow.info()
    return info.is_continue_as_new_suggested() or info.get_current_history_length() > MAX_EVENTS
