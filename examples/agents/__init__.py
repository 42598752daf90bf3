"""Sample HTTP agents: one small service plays all agents of the platform, by plain algorithms."""

from examples.agents.catalog import CATALOG, Entry

__all__ = ["CATALOG", "Entry"]
