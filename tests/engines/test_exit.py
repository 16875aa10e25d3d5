"""A process that ends while its model computes: at once, in order, whoever forgot to close."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.forked import Forked
from transformers import LlamaConfig

from hanol import models

from .conftest import LLAMA, tokenizer

# Each of 8 layers works for 0.2 seconds without Python.
PROGRAM = """
import asyncio, sys, time
import torch
from hanol.engines import Message, Request, Sampling, open_engine
from hanol.runs import synchronous

engine = open_engine(sys.argv[1])
model = engine._worker._model
big = torch.randn(1400, 1400)
began = asyncio.Event()

def slow(module, inputs, output):
    if not began.is_set():
        loop.call_soon_threadsafe(began.set)
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        big @ big

for layer in model.model.layers:
    layer.register_forward_hook(slow)

async def main(end):
    global loop
    loop = asyncio.get_running_loop()
    request = Request((Message("user", "abc " * 100),), Sampling(max_tokens=900))
    task = asyncio.create_task(engine.complete(request))
    await began.wait()
    start = time.perf_counter()
    if end == "closed":
        await engine.aclose()
        await asyncio.gather(task, return_exceptions=True)
    elif end == "raised":
        raise SystemExit(3)
    print(time.perf_counter() - start, flush=True)

if sys.argv[2] == "half read":
    loop = asyncio.new_event_loop()
    request = Request((Message("user", "a"),), Sampling(max_tokens=900, temperature=0))
    pieces = synchronous(engine.stream)(request)
    next(pieces)
else:
    asyncio.run(main(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    folder = tmp_path_factory.mktemp("deep") / "m"
    text = tokenizer(LLAMA)
    config = LlamaConfig(
        vocab_size=len(text), hidden_size=16, intermediate_size=16, num_hidden_layers=8,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=1024,
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id,
    )  # fmt: skip
    models.save(models.build(config, seed=0), folder, tokenizer=text)
    return folder


@pytest.mark.parametrize(
    ("end", "code"), [("closed", 0), ("left", 0), ("raised", 3), ("half read", 0)]
)
def test_a_process_ends_in_order_while_its_model_computes(
    deep: Path, end: str, code: int, forked: Callable[..., Forked]
) -> None:
    done = forked(PROGRAM, deep, end)
    assert (done.wait(60), done.stderr) == (code, "")
    if end == "closed":
        assert float(done.stdout) < 0.8, "a pass of a prompt ends between two layers"
