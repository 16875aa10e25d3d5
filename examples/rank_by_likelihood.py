"""Ask a model which continuation of a prompt is the likeliest, without sampling."""

import asyncio

from hanol.engines import Request, open_engine
from hanol.models import load_tokenizer

PROMPT = "import os\n\npath = os.path."
CONTINUATIONS = ["join(root, name)", "banana(root, name)", "exists(root)"]


async def main() -> None:
    engine = open_engine("tiny")
    ids = tuple(load_tokenizer("tiny")(PROMPT).input_ids)
    scored = await engine.score(Request(prompt_ids=ids), CONTINUATIONS)
    pairs = zip(CONTINUATIONS, scored, strict=True)
    for text, score in sorted(pairs, key=lambda pair: -sum(pair[1].logprobs)):
        print(f"{sum(score.logprobs):8.2f} nats  {text}")
    await engine.aclose()


asyncio.run(main())
