"""Claims of O1 Replication Journey (arXiv 2410.18982, 2411.16489)."""
