"""Fine-tune a chat model on conversations by a LoRA adapter, and ask the result."""

import json
import tempfile
from pathlib import Path

from hanol.models import load
from hanol.training import SftRecipe, train

with tempfile.TemporaryDirectory() as folder:
    rows = Path(folder, "messages.jsonl")
    messages = [{"role": "user", "content": "Ping"}, {"role": "assistant", "content": "Pong pong"}]
    rows.write_text(json.dumps({"messages": messages}) + "\n")
    recipe = SftRecipe(
        kind="sft",
        name="pong",
        model="tiny-researcher",
        data={"path": str(rows), "held_out": 0},
        lora={"rank": 4},
        tokens=2000,
        batch_size=4,
        adamw_lr=0.01,
    )
    result = train(recipe, Path(folder, "run"))
    print(result.summary().partition(": ")[2])
    model, tokenizer = load(result.checkpoint)  # the adapter, merged into its base
    prompt = tokenizer.apply_chat_template(
        messages[:1], add_generation_prompt=True, return_tensors="pt"
    )
    written = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0]
    print(tokenizer.decode(written[prompt["input_ids"].shape[1] :], skip_special_tokens=True))
