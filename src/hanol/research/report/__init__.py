"""A run as a reader sees it: its answer with checked citations, its steps, its page."""
