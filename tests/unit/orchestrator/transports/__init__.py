"""Tests of orchestrator.transports."""
