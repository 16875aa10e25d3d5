"""Put AutoDeco heads on a causal language model: it chooses temperature and top-p per token."""

import torch

from hanol.autodeco import AutoDecoForCausalLM
from hanol.models import build

base = build("llama-3m", vocab_size=512)  # any causal language model of transformers
model = AutoDecoForCausalLM.from_base(base)
ids = torch.tensor([[5, 6, 7]])
outputs = model(ids)
print("temperature", [round(t, 3) for t in outputs.temperature[0].tolist()])
print("top-p      ", [round(p, 3) for p in outputs.top_p[0].tolist()])
torch.manual_seed(0)
print(model.generate(ids, max_new_tokens=8, do_sample=True)[0].tolist())
