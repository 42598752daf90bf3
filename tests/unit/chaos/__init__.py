"""Tests of the fault suite itself."""
