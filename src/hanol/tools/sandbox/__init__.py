"""Running a model's Python code in a sandbox without network, files or secrets."""
