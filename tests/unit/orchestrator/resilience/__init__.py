"""Tests of orchestrator.resilience."""
