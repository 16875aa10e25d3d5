"""The engine of a transformers checkpoint in this process: one thread runs the model."""
