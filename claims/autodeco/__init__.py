"""Claims of AutoDeco (arXiv 2510.26697)."""
