"""See which temperature and top-p a model with heads chose for every token of a text."""

import tempfile
from pathlib import Path

import torch

from hanol.autodeco import AutoDecoForCausalLM, load_tokenizer, trace

PROMPT = "def mean(values):\n"
model = AutoDecoForCausalLM.from_pretrained("tiny-autodeco")
tokenizer = load_tokenizer("tiny-autodeco")
ids = tokenizer(PROMPT, return_tensors="pt").input_ids
torch.manual_seed(3)
written = model.generate(ids, max_new_tokens=24, do_sample=True)[0, ids.shape[1] :]
chosen = trace(model, tokenizer, PROMPT, written.tolist())
for token in chosen.tokens[:8]:
    print(f"{token.text!r:>12}  temperature {token.temperature:.2f}  top-p {token.top_p:.2f}")
page = Path(tempfile.mkdtemp()) / "trace.html"
page.write_text(chosen.to_html(), "utf-8")
print(f"as a page: {page.name}, {page.stat().st_size:,} bytes")
