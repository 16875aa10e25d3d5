"""The operator of Kimi Delta Attention: its definition, its fast forms, its kernels."""
