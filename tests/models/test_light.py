"""Imports that a program leaves out until it uses them, and still finds whole."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hanol import models

LATER = """
import sys
from hanol import models
models.light_imports()
assert not {"torch._dynamo", "torch.distributed.tensor", "scipy"} & set(sys.modules)
model = models.load_model("tiny").eval()
assert not {"torch._dynamo", "torch.distributed.tensor", "sympy"} & set(sys.modules)

import torch, transformers
from transformers.distributed import sharding_utils
from transformers.distributed.utils import is_dtensor
assert not isinstance(torch.ones(1), sharding_utils.DTensor)

from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
assert isinstance(DTensor, type)
store = torch.distributed.HashStore()
torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=store)
mesh = torch.distributed.init_device_mesh("cpu", (1,))
spread = distribute_tensor(torch.ones(2), mesh, [Replicate()])
assert is_dtensor(spread) and isinstance(spread, sharding_utils.DTensor)
assert not is_dtensor(torch.ones(2))

from transformers.loss.loss_for_object_detection import linear_sum_assignment
assert [list(x) for x in linear_sum_assignment([[1, 0], [0, 1]])] == [[0, 1], [1, 0]]
from transformers import Trainer, TrainingArguments
from transformers.integrations.finegrained_fp8 import _load_finegrained_fp8_kernel

ids = torch.tensor([[1, 2, 3]])
llama = models.build("llama-3m").eval()
with torch.no_grad():
    plain = llama(ids).logits
    compiled = torch.compile(llama, backend="eager")(ids).logits
torch.testing.assert_close(compiled, plain)
from torch._dynamo import trace_rules
assert trace_rules.is_callable_allowed(_load_finegrained_fp8_kernel)
torch.distributed.destroy_process_group()
print("whole")
"""


THEN_MUCH = """
from hanol import models
models.light_imports()
models.load_model("tiny")
import {first}
import torch, accelerate, hanol.rl, hanol.training, hanol.autodeco
from hanol.rl import GrpoTrainer
from hanol.training import train
from torch.distributed.fsdp import fully_shard
from transformers import modeling_utils
llama = models.build("llama-3m").eval()
ids = torch.tensor([[1, 2, 3]])
torch.testing.assert_close(
    torch.compile(llama, backend="eager")(ids).logits, llama(ids).logits
)
kept = [
    f"{{module.__name__}}.{{name}}"
    for module in list(__import__("sys").modules.values())
    if module.__name__.startswith("transformers.")
    for name, value in list(vars(module).items())
    if type(value).__name__ == "_Later"
]
assert not kept, kept
print("whole")
"""


@pytest.mark.parametrize(
    "first",
    ["torch.distributed.fsdp", "torch.distributed.tensor", "torch._dynamo", "accelerate", "peft"],
)
def test_a_process_that_began_light_imports_everything_later(first: str) -> None:
    """Stand-ins give way to the real modules once, whoever imports them first, half or whole."""
    code = THEN_MUCH.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "whole\n", done.stderr


def test_what_was_left_out_is_there_when_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True)
    assert done.stdout == "whole\n", done.stderr


def test_auto_classes_know_our_models_whichever_comes_first() -> None:
    code = (
        "import {}, {}, hanol.models\n"
        "hanol.models.preset_names()\n"
        "from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as known\n"
        "names = {{config.model_type for config in known._extra_content}}\n"
        "assert {{'hanol_gdn_hybrid', 'hanol_conv_attention', 'autodeco'}} <= names, names"
    )
    rooms = "hanol.models, hanol.autodeco"
    auto = "transformers.models.auto.modeling_auto"
    private = "hanol.models._build, hanol.autodeco._wrapped"  # which import it themselves
    for first, then in ((rooms, auto), (auto, rooms), (private, rooms)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(first, then)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.0] * 8,
         "long_factor": [2.0] * 8, "original_max_position_embeddings": 64},
    ],
    ids=lambda rope: rope["rope_type"],
)  # fmt: skip
def test_frequencies_are_numbers_after_a_load(rope: dict[str, Any], tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, rope_parameters={**rope, "rope_theta": 1e4},
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    made.save_pretrained(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(models.load_model, [tmp_path] * 6))
    for model in loaded:
        frequencies = model.model.rotary_emb.inv_freq
        assert torch.equal(frequencies, made.model.rotary_emb.inv_freq)
    assert torch.arange(3, device="meta").is_meta
    assert torch.arange is vars(torch)["arange"]


def test_a_gguf_file_loads_after_light_imports(tmp_path: Path) -> None:
    """Its reader imports what the model classes left out, in another order."""
    pytest.importorskip("gguf")
    model, tokenizer = models.build("llama-3m", seed=0), models.load_tokenizer("tiny")
    models.to_gguf(model, tokenizer, tmp_path / "a.gguf")
    code = (
        "from hanol import models; models.light_imports(); import sys; "
        "print(models.load_model(sys.argv[1]).num_parameters())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.gguf")], capture_output=True, text=True
    )
    assert done.stdout == f"{model.num_parameters()}\n", done.stderr[-2000:]
