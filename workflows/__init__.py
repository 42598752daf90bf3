"""Deterministic control flow; everything that touches the world is an activity."""
