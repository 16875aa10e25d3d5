"""One SQLite index over a folder: passages, full text, vectors."""
