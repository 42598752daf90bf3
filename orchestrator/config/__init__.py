"""The configuration as typed, frozen models; orchestrator/config_file.py reads it from YAML.

Times are seconds, sizes are bytes. Unknown keys are errors.
"""

from orchestrator.config.agents import Agent, AgentRateLimit, Instance, LoadBalancing, Match, Rule
from orchestrator.config.engine import (
    Embedded,
    Encryption,
    PayloadStorage,
    Storage,
    Temporal,
    Versioning,
)
from orchestrator.config.messages import Completions, MessageQueue
from orchestrator.config.service import AgentIdentity, Jwt, Limits, Logging, Quota, Security
from orchestrator.config.settings import Settings
from orchestrator.config.tasks import (
    CircuitBreaker,
    Coalescing,
    ErrorRecovery,
    PriorityQueue,
    RateLimiting,
)
from orchestrator.config.values import ENGINE_BYTES, TASK_BYTES, AgentUrl

__all__ = [
    "ENGINE_BYTES",
    "TASK_BYTES",
    "Agent",
    "AgentIdentity",
    "AgentRateLimit",
    "AgentUrl",
    "CircuitBreaker",
    "Coalescing",
    "Completions",
    "Embedded",
    "Encryption",
    "ErrorRecovery",
    "Instance",
    "Jwt",
    "Limits",
    "LoadBalancing",
    "Logging",
    "Match",
    "MessageQueue",
    "PayloadStorage",
    "PriorityQueue",
    "Quota",
    "RateLimiting",
    "Rule",
    "Security",
    "Settings",
    "Storage",
    "Temporal",
    "Versioning",
]
