"""A durable orchestrator of HTTP agents on Temporal."""

from importlib.metadata import version

__version__ = version("orchestration-agent")
