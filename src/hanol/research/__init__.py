"""Research: the deep-research agent of Tongyi (arXiv 2510.24701) over one's own documents."""
