"""The stages of a recipe: what they read, what they do, and how their models are judged."""
