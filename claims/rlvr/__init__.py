"""Claims about reinforcement learning from verifiable rewards (arXiv 2411.15124)."""
