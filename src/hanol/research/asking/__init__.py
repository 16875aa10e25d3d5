"""Questions answered in one step: search, read, check."""
