"""Claims of Tongyi DeepResearch (arXiv 2510.24701)."""
