"""The layout of NVLM-D-72B, in a tiny copy with heads that fill up."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import InternVLVisionConfig, InternVLVisionModel, Qwen2Config, Qwen2ForCausalLM

from hanol.errors import CheckpointError
from hanol.multimodal import NvlmForConditionalGeneration

WIDTH, HEADS, HEAD, DUMMIES = 24, 3, 8, 1
PADDED = (HEADS + DUMMIES) * HEAD
LANGUAGE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 20, "vocab_size": 50, "architectures": ["Qwen2ForCausalLM"],
    "model_type": "llama", "rope_theta": 1e6, "max_position_embeddings": 64,
}  # fmt: skip
CONFIG = {
    "architectures": ["NVLM_D"], "model_type": "NVLM_D", "downsample_ratio": 0.5,
    "force_image_size": 16, "select_layer": -1, "ps_version": "v2", "max_dynamic_patch": 6,
    "auto_map": {"AutoModel": "modeling_nvlm_d.NVLM_D_Model"}, "llm_config": LANGUAGE,
    "vision_config": {
        "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "intermediate_size": 20, "patch_size": 4, "image_size": 16, "qkv_bias": False,
        "qk_normalization": True, "norm_type": "rms_norm", "num_dummy_heads": DUMMIES,
    },
}  # fmt: skip


def parts(vocab_size: int = 50) -> tuple[InternVLVisionModel, Qwen2ForCausalLM]:
    torch.manual_seed(0)
    vision = InternVLVisionModel(
        InternVLVisionConfig(
            hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS,
            intermediate_size=20, patch_size=[4, 4], image_size=[16, 16], use_qk_norm=True,
            norm_type="rms_norm",
        )
    ).eval()  # fmt: skip
    kept = {k: v for k, v in LANGUAGE.items() if k not in ("architectures", "model_type")}
    kept["vocab_size"] = vocab_size
    language = Qwen2ForCausalLM(Qwen2Config(**kept)).eval()
    for model in (vision, language):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return vision, language


def official(vision: InternVLVisionModel, noise: float, dummies: int) -> dict[str, Tensor]:
    """The tower's tensors as the published files have them; noise in the heads that fill up."""
    padded = (HEADS + dummies) * HEAD
    names = {
        "attention.projection_layer": "attn.proj", "attention.q_norm": "attn.q_norm",
        "attention.k_norm": "attn.k_norm", "layernorm_before": "norm1",
        "layernorm_after": "norm2", "lambda_1": "ls1", "lambda_2": "ls2",
    }  # fmt: skip

    def filled(x: Tensor, dim: int) -> Tensor:
        shape = list(x.shape)
        shape[dim] = padded - WIDTH
        return torch.cat([x, noise * torch.randn(shape)], dim)

    made, fused = {}, {}
    for name, x in vision.state_dict().items():
        if name.startswith("embeddings."):
            name = name.replace("cls_token", "class_embedding")
            name = name.replace("patch_embeddings.projection", "patch_embedding")
            name = name.replace("position_embeddings", "position_embedding")
            made[f"vision_model.{name}"] = x
            continue
        name = name.replace("encoder.layer.", "vision_model.encoder.layers.")
        if "_proj.weight" in name:
            base, which = name.split("attention.")
            fused.setdefault(base, {})[which[0]] = filled(x, 0)
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if "q_norm" in name or "k_norm" in name:
            x = filled(x, 0)
        elif "attn.proj.weight" in name:
            x = filled(x, 1)
        made[name] = x
    for base, three in fused.items():
        made[f"{base}attn.qkv.weight"] = torch.cat([three[part] for part in "qkv"])
    return made


def write(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any] = CONFIG) -> Path:
    """A folder of two files with an index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(tensors)
    where = {}
    for number, half in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name].contiguous() for name in half}, folder / file)
        where |= dict.fromkeys(half, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where})
    )
    return folder


def projector() -> dict[str, Tensor]:
    return {
        "mlp1.0.weight": torch.randn(4 * WIDTH), "mlp1.0.bias": torch.randn(4 * WIDTH),
        "mlp1.1.weight": torch.randn(20, 4 * WIDTH), "mlp1.3.weight": torch.randn(16, 20),
    }  # fmt: skip


@pytest.mark.parametrize(("noise", "dummies"), [(0.0, 1), (3.0, 1), (0.0, 0)])
def test_a_sharded_copy_loads_and_heads_that_fill_up_change_nothing(
    tmp_path: Path, noise: float, dummies: int
) -> None:
    vision, language = parts()
    mlp = projector()
    tensors = official(vision, noise, dummies) | mlp
    tensors |= {f"language_model.{name}": x for name, x in language.state_dict().items()}
    model = NvlmForConditionalGeneration.from_pretrained(
        write(tmp_path / "nvlm", tensors), dtype=torch.float32
    )
    assert model.config.ps_version == 2
    assert type(model.language_model) is Qwen2ForCausalLM
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        patches = vision(pixel_values=pixels).last_hidden_state[:, 1:]
        squares = patches.view(2, 2, 2, 2, 2, WIDTH).transpose(2, 3).reshape(2, 4, 4 * WIDTH)
        x = torch.nn.functional.layer_norm(
            squares, (4 * WIDTH,), mlp["mlp1.0.weight"], mlp["mlp1.0.bias"]
        )
        x = torch.nn.functional.gelu(x @ mlp["mlp1.1.weight"].T) @ mlp["mlp1.3.weight"].T
        assert torch.allclose(model.visual_tokens(pixels), x, atol=1e-5, rtol=1e-5)
        model.config.image_token_id = 49
        ids = torch.tensor([[1, *[49] * 8, 2]])
        embeds = language.get_input_embeddings()(ids)
        embeds[0, 1:9] = x.flatten(0, 1)
        expected = language(inputs_embeds=embeds).logits
        made = model(input_ids=ids, pixel_values=pixels, tiles_per_image=[2]).logits
    assert torch.allclose(made, expected, atol=1e-4)
    model.save_pretrained(tmp_path / "ours")
    again = NvlmForConditionalGeneration.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        assert torch.equal(
            again(input_ids=ids, pixel_values=pixels, tiles_per_image=[2]).logits, made
        )


def test_files_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    vision, language = parts()
    tensors = official(vision, 0.0, 1) | projector()
    tensors |= {f"language_model.{name}": x for name, x in language.state_dict().items()}
    load = NvlmForConditionalGeneration.from_pretrained
    with pytest.raises(CheckpointError, match=r"1 unexpected \(mlp1.1.bias\)"):
        load(write(tmp_path / "a", tensors | {"mlp1.1.bias": torch.zeros(20)}))
    few = {name: x for name, x in tensors.items() if name != "mlp1.3.weight"}
    with pytest.raises(CheckpointError, match=r"1 missing \(mlp1.3.weight\)"):
        load(write(tmp_path / "b", few))
    with pytest.raises(CheckpointError, match=r"mlp1.3.weight.*\(16, 21\).*\(16, 20\)"):
        load(write(tmp_path / "c", tensors | {"mlp1.3.weight": torch.zeros(16, 21)}))
    unknown = {**CONFIG, "llm_config": {**LANGUAGE, "architectures": ["Nemotron"]}}
    with pytest.raises(CheckpointError, match="Nemotron; known are Qwen2ForCausalLM"):
        load(write(tmp_path / "d", tensors, unknown))
    with pytest.raises(CheckpointError, match="lacks 'llm_config'"):
        load(write(tmp_path / "e", tensors, {"architectures": ["NVLM_D"]}))
