"""Training of the heads: data, features, losses, recipes, steering and GRPO."""
