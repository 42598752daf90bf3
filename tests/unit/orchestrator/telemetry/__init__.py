"""Tests of orchestrator.telemetry."""
