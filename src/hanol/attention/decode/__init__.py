"""One token of a whole model without an operation of PyTorch for each step: kernels and weights."""
