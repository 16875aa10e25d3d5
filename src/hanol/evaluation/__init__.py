"""Evaluation: scores of answers against references, with intervals; judges; aggregates."""
