"""Learning from preferences: the losses, rows of pairs, and the kind of recipe."""
