"""Everything that touches Temporal's plumbing."""
