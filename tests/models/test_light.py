"""Imports that a program leaves out until it uses them, and still finds whole."""

import subprocess
import sys

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
