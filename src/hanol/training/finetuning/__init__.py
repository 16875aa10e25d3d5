"""Fine-tuning on conversations: from rows to labels, whole or by LoRA adapters."""
