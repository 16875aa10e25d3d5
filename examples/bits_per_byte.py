"""Compare language models with different tokenizers: bits per byte of the same text."""

import inspect
import textwrap

from hanol.models import load
from hanol.training import bits_per_byte

text = inspect.getsource(textwrap)
model, tokenizer = load("tiny")
print(f"tiny needs {bits_per_byte(model, tokenizer, [text]):.2f} bits per byte of textwrap.py")
