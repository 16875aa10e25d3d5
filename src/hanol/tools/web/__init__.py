"""The web and the index as tools, and fetching that cannot reach private addresses."""
