"""Make any model answer with JSON that fits a schema, even one that never saw JSON."""

import asyncio
import json

from hanol.engines import Constraint, Request, Sampling, open_engine
from hanol.models import load_tokenizer

SCHEMA = {
    "type": "object",
    "required": ["language", "lines"],
    "additionalProperties": False,
    "properties": {
        "language": {"enum": ["python", "c", "rust"]},
        "lines": {"type": "integer", "minimum": 1, "maximum": 99},
    },
}


async def main() -> None:
    engine = open_engine("tiny")
    ids = tuple(load_tokenizer("tiny")("import os\n").input_ids)
    request = Request(
        prompt_ids=ids,
        sampling=Sampling(seed=0, max_tokens=64),
        constraint=Constraint.json_schema(SCHEMA),
    )
    completion = await engine.complete(request)
    print(json.loads(completion.text))
    await engine.aclose()


asyncio.run(main())
