"""Claims of Kimi Linear (arXiv 2510.26692)."""
