"""GGUF files, the format of llama.cpp: checked, read through transformers, written."""
