"""Claims of DITING: what judges of translations are worth, on the public MetricAlign items."""
