"""Things to try the orchestrator with."""
