"""Tasks: items, what solves them and what scores them, run on any engine and by other harnesses."""
