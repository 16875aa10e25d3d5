"""Claims of compute-optimal test-time scaling (arXiv 2408.03314)."""
