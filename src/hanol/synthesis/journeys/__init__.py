"""Reasoning trees, long thoughts walked through them, and the rows that models learn from these."""
