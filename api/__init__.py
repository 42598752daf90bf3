"""The HTTP API: requests in, problem documents out, everything else elsewhere."""
