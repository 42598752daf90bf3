"""Names of what workflows do since some version: what began before keeps to its recorded course.

Asking ``workflow.patched`` costs a run two events, once. So ask where the commands differ, and only
then: never on the way of every task.
"""

CALLBACKS = "callbacks"
"""Receivers are told of ends; before, a task's ``callback_url`` was only kept."""
COALESCED_TOLD_SOON = "coalesced-told-soon"
"""The tally of coalesced tasks shows after a second, and after records; before, after five."""
NO_CALL_TOO_LATE = "no-call-too-late"
"""After its deadline a task makes no call; before, it made one of a millisecond, or two."""
