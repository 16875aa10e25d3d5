"""Pre-training of language models: text, packing, tokenizers, the run."""
