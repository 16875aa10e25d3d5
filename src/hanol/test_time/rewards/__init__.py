"""Process reward models: their formats, labels without people, training."""
