"""Choosing among an agent's instances: plain Python that knows no engine and no web framework."""
