"""Who may do what: callers, API keys, bearer tokens, quotas."""
