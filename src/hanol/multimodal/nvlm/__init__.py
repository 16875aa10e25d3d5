"""NVLM's decoder-only, cross-attention and hybrid models on any language model and vision tower."""
