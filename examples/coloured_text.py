"""See which temperature and top-p a model with heads chose for every token of a text."""

import tempfile
from pathlib import Path

from hanol.autodeco import AutoDecoForCausalLM, load_tokenizer, trace

model = AutoDecoForCausalLM.from_pretrained("tiny-autodeco")
tokenizer = load_tokenizer("tiny-autodeco")
chosen = trace(model, tokenizer, "def mean(values):\n", max_new_tokens=24, seed=3)
for token in chosen.tokens[:8]:
    print(f"{token.text!r:>12}  temperature {token.temperature:.2f}  top-p {token.top_p:.2f}")
page = Path(tempfile.mkdtemp()) / "trace.html"
page.write_text(chosen.to_html(), "utf-8")
print(f"as a page: {page.name}, {page.stat().st_size:,} bytes")
