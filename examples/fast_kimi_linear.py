"""Speed up a Kimi-Linear model that transformers has loaded; its logits stay the same."""

import torch

from hanol.attention import accelerate
from hanol.models import build

model = build("kimi-linear-3m", vocab_size=512)  # or AutoModelForCausalLM.from_pretrained(...)
accelerate(model)
ids = torch.arange(12).unsqueeze(0)
model.requires_grad_(False)
whole = model(ids).logits
padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)  # padding on the left
mask = torch.tensor([[0] * 4 + [1] * 12])
again = model(padded, attention_mask=mask).logits[:, 4:]
print("largest difference:", float((again - whole).abs().max()))
