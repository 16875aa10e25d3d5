"""How fast a model decodes with each type of weights on this machine, and which one to take."""

import copy
import hashlib
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol import attention
from hanol.files import cache_folder, read_text, replace_json

_FLOAT = "float32"
# Above this mean KL divergence from float32 (nats a token), answers become others.
MOST_DIVERGENCE = 0.01
_STEPS, _ROUNDS = 4, 3
_TEXT = (
    "The lighthouse was built in 1811 on a reef that is covered by the sea twice a day. Its stones "
    "were cut to fit into each other, so that no wave could lift a single one of them. For two "
    "years the masons lived on a ship beside it, and worked for a few hours at each low tide."
)


class WeightSpeed(BaseModel):
    """One type of weights."""

    weights: str = Field(description="float32, bfloat16, int8 or int4.")
    tokens_per_second: float
    num_bytes: int = Field(description="Of all weights.")
    share_of_limit: float = Field(
        description="Of the rate at which memory gives these bytes once a token."
    )
    divergence: float = Field(description="Mean KL divergence from float32 over a text, nats.")


class SpeedReport(BaseModel):
    """All types of weights of a model on this machine."""

    model: str
    machine: str = Field(description="Processor and threads.")
    bytes_per_second: float = Field(description="That memory gives, measured.")
    speeds: list[WeightSpeed]
    taken: str = Field(description="What `dtype='auto'` takes.")


def speed_report(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> SpeedReport:
    """Measure the types of weights of a float32 model on the CPU, once for a machine and a model.

    Taken is the fastest type whose divergence is at most 0.01. The result is kept in the folder of
    pulled models; one that cannot be read is measured again. A model without a decode step of its
    own (`hanol.attention.accelerate_decoding`) keeps float32.
    """
    if not attention.accelerate_decoding(model) or attention.decode_step(model) is None:
        return SpeedReport(
            model=name, machine=_machine(), bytes_per_second=0.0, speeds=[], taken=_FLOAT
        )
    place = _place(model)
    try:
        return SpeedReport.model_validate_json(read_text(place)).model_copy(update={"model": name})
    except (OSError, ValueError):
        report = _measured(name, model, tokenizer)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_json(place, report.model_dump())
    except OSError:
        pass  # measured again next time
    return report


def _machine() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _place(model: PreTrainedModel) -> Path:
    """Where the result is kept: by machine, versions, and what of the model decides its speed."""
    head: Any = model.get_output_embeddings()
    parts = [
        _machine(), version("hanol"), version("torch"), version("numba"),
        model.config.to_json_string(), str(head.weight[:64, :64].double().sum().item()),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return cache_folder() / "speed" / f"{key}.json"


@torch.no_grad()
def _measured(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SpeedReport:
    run: Any = model
    ids = tokenizer(_TEXT, return_tensors="pt").input_ids[:, :128]
    expected = run(ids).logits[0].log_softmax(-1)
    rate = _reading_rate()
    speeds = []
    for kind in (_FLOAT, *attention.KINDS):
        one: Any = model
        if kind != _FLOAT:
            one = copy.deepcopy(model)
            attention.pack(one, kind)
        found = one(ids).logits[0].log_softmax(-1)
        divergence = float((expected.exp() * (expected - found)).sum(-1).mean())
        cache = one(ids, use_cache=True)[attention.CACHE_NAME]
        seconds = []
        for _ in range(_ROUNDS + 1):
            begin = time.perf_counter()
            for _ in range(_STEPS):
                one(ids[:, :1], use_cache=True, **{attention.CACHE_NAME: cache})
            seconds.append((time.perf_counter() - begin) / _STEPS)
        tensors = {x.data_ptr(): x for x in (*one.parameters(), *one.buffers())}.values()
        size = sum(x.numel() * x.element_size() for x in tensors)
        speed = 1 / min(seconds[1:])
        speeds.append(
            WeightSpeed(
                weights=kind, tokens_per_second=speed, num_bytes=size,
                share_of_limit=size * speed / rate, divergence=max(divergence, 0.0),
            )
        )  # fmt: skip
    good = [x for x in speeds if x.divergence <= MOST_DIVERGENCE]
    taken = max(good, key=lambda x: x.tokens_per_second).weights
    return SpeedReport(
        model=name, machine=_machine(), bytes_per_second=rate, speeds=speeds, taken=taken
    )


def _reading_rate() -> float:
    """Bytes a second of a product that reads 256 MB."""
    matrix, vector = torch.ones(8192, 8192), torch.ones(8192)
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        torch.mv(matrix, vector)
        seconds.append(time.perf_counter() - begin)
    return matrix.numel() * 4 / min(seconds[1:])
