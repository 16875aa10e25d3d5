"""Stream a completion from the bundled model, then draw three samples of one prompt."""

import asyncio

from hanol.engines import Request, Sampling, open_engine
from hanol.models import load_tokenizer

PROMPT = 'def mean(values):\n    """Return the mean of the values."""\n'


async def main() -> None:
    engine = open_engine("tiny")
    ids = tuple(load_tokenizer("tiny")(PROMPT).input_ids)
    greedy = Sampling(temperature=0.0, max_tokens=24)
    async for piece in engine.stream(Request(prompt_ids=ids, sampling=greedy)):
        print(piece.text, end="", flush=True)
    print()
    drawn = Sampling(temperature=0.8, top_p=0.9, seed=1, max_tokens=16)
    completion = await engine.complete(Request(prompt_ids=ids, sampling=drawn, n=3))
    for choice in completion.choices:
        print(repr(choice.text))
    await engine.aclose()


asyncio.run(main())
