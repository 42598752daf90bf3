"""Tests of pure code, and of transports against local servers."""
