"""All timeouts and retry policies of the workflows."""

from datetime import timedelta

from temporalio.common import RetryPolicy

from orchestrator.callbacks import MOST_CALLBACK_SECONDS
from orchestrator.errors import PayloadTooLarge
from orchestrator.models import RetryPlan

HEARTBEAT_TIMEOUT = timedelta(seconds=10)
"""How long after its last sign of life a worker's call is given to another worker."""

BACKSTOP = timedelta(seconds=5)
"""The activity ends a call itself, with a clearer error; the engine does so this much later."""

RESOLVE_TIMEOUT = timedelta(seconds=10)
RESOLVE_RETRY = RetryPolicy(maximum_attempts=3)
"""Of routing, which needs nobody else: what fails three times is wrong."""

FALLBACK_AFTER = timedelta(seconds=10)
"""How long a call waits in an agent's queue before the next of a rule's agents is asked."""

ONCE = RetryPolicy(maximum_attempts=1)

LONGEST = timedelta(days=30)
"""Far beyond what any sensible order takes."""

LONGEST_JOIN = timedelta(days=31)
"""Beyond any deadline of an aggregate."""

PATIENT = RetryPolicy(maximum_interval=timedelta(seconds=10))
"""Of what is tried until it is done."""

POLL_TIMEOUT = timedelta(seconds=40)
"""Of one look at the answer of an agent that is polled; the activity ends it before."""

POLLS = RetryPolicy(backoff_coefficient=1)
"""The activity says when to look again."""
TELL_TIMEOUT = timedelta(seconds=20)
PUBLISH_TIMEOUT = timedelta(seconds=15)
PUBLISH_RETRY = RetryPolicy(maximum_interval=timedelta(seconds=15))

CHUNK_RETRY = RetryPolicy(
    maximum_interval=timedelta(seconds=10),
    non_retryable_error_types=[PayloadTooLarge.__name__],
)

CALLBACK_TIMEOUT = timedelta(seconds=MOST_CALLBACK_SECONDS) + BACKSTOP
CALLBACK_RETRY = RetryPolicy(initial_interval=timedelta(seconds=5))
"""Of a delivery whose worker was lost; after other failures the activity says how long to wait."""
CALLBACK_STARTS_TIMEOUT = timedelta(minutes=5)

LOST_CALLS = ("TemporalTimeout:Heartbeat", "TemporalTimeout:StartToClose")
"""How the engine names the failure of a call whose worker fell silent, or overran its time."""


def retry_policy(retry: RetryPlan, *, idempotent: bool = True) -> RetryPolicy:
    """The plan's retries as the engine's policy.

    The activity counts its attempts itself, since what the engine counts are dispatches: some find
    the agent unavailable, and cost the task nothing.
    """
    return RetryPolicy(
        initial_interval=timedelta(seconds=retry.initial_seconds),
        backoff_coefficient=retry.backoff,
        maximum_interval=timedelta(seconds=retry.maximum_seconds),
        # An answer that grew over the engine's cap when it was written anew.
        non_retryable_error_types=[
            PayloadTooLarge.__name__,
            # Nobody knows whether such a call was made, so some must not be made again.
            *(() if idempotent else LOST_CALLS),
        ],
    )
