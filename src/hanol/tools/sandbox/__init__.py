"""Running a model's Python code where it can reach nothing."""
