"""Models by name from the hub or from a package index, in the user's cache."""
