"""Run a recipe from Python: a few steps of a language model on your own text."""

import tempfile
from pathlib import Path

from hanol.training import read_recipe, train

texts = Path(tempfile.mkdtemp())
for i in range(40):
    (texts / f"{i}.txt").write_text(f"Chapter {i}. " + "It rained in the valley. " * 40, "utf-8")
recipe = read_recipe(
    "recipes/tiny/pretrain.yaml",
    ["data.source=folder", f"data.path={texts}", "tokenizer.vocab_size=300", "threads=1",
     "schedule.warmup_tokens=512", "schedule.decay_tokens=1024", "save_every=4",
     "stages=[{tokens: 2048, sequence_length: 128, batch_tokens: 512}]", "eval_bytes=2000"],
)  # fmt: skip
result = train(recipe, Path(tempfile.mkdtemp()) / "run")
print(Path(result.checkpoint).name, sorted(file.name for file in Path(result.checkpoint).iterdir()))
