"""The index of a folder in one SQLite file: passages, full text, vectors."""
