"""Training data of a reader: questions about passages, cited answers, refusals."""
