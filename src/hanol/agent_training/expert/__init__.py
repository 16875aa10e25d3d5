"""A policy that knows the world and shows how the tools are used, and what it needs."""
