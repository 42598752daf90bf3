"""``orchestrator run``: the engine, a worker, the API and the sample agents on one machine."""
