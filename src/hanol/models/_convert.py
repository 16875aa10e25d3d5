"""Checkpoints from one layout of files to another."""

import json
from pathlib import Path
from typing import Literal, get_args

from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hanol.errors import CheckpointError, ConfigError
from hanol.files import open_regular, read_json, whole_folder
from hanol.models._build import cast, dtype_named
from hanol.models._load import explained, load_model, load_tokenizer
from hanol.models._meta import llama_from_meta, llama_to_meta, merge_meta_parts
from hanol.models._official import save
from hanol.models._tokenizers import check_files
from hanol.models.gguf._write import to_gguf

Layout = Literal["transformers", "meta", "gguf"]


def convert(
    source: str | Path,
    output: str | Path,
    *,
    to: Layout = "transformers",
    dtype: str | None = None,
    rope_factor: float | None = None,
) -> Path:
    """Write a checkpoint in another layout.

    Args:
        source: Bundled or pulled name, folder, GGUF file or hub id; or a folder in Meta's layout:
            `params.json` and `consolidated.*.safetensors`, with a tokenizer of transformers or
            without.
        output: Folder, or for "gguf" file, to write; an existing checkpoint there is replaced.
        to: "transformers" is a folder that transformers and, for Kimi Linear, the official code
            read; "meta" holds Meta's tensors of a Llama; "gguf" is one file for llama.cpp.
        dtype: Data type of the weights; None is float32. GGUF takes float32 and float16.
        rope_factor: RoPE scaling of a source in Meta's layout whose `params.json` asks for it: 32
            for Llama 3.2; None is 8, for 3.1 and 3.3.

    Returns:
        What was written.

    Raises:
        CheckpointError: The source cannot be read, or the result cannot be written.
        ConfigError: The layout cannot express the model, a value is unknown, or `rope_factor` has
            no effect on this source.
    """
    if to not in get_args(Layout):
        raise ConfigError(f"`to` is {to!r}, but must be one of {', '.join(get_args(Layout))}.")
    if to == "gguf" and dtype not in (None, "float32", "float16"):
        raise ConfigError(f"`dtype` is {dtype!r}, but GGUF files take float32 or float16.")
    wanted = None if dtype is None else dtype_named(dtype)
    output = Path(output)
    model, tokenizer = _read(source, rope_factor)
    if to == "gguf":
        if tokenizer is None:
            raise CheckpointError(f"{str(source)!r} has no tokenizer, which a GGUF file needs.")
        return to_gguf(model, tokenizer, output, "f16" if dtype == "float16" else "f32")
    if wanted is not None:
        cast(model, wanted)
    if to == "transformers":
        return save(model, output, tokenizer)
    tensors, params = llama_to_meta(model)
    with whole_folder(output) as part:
        kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
        kept["output.weight"] = kept["output.weight"].clone()  # tied to the embedding, perhaps
        save_file(kept, part / "consolidated.00.safetensors")
        (part / "params.json").write_text(json.dumps(params, indent=2) + "\n", "utf-8")
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
    return output


def _read(
    source: str | Path, rope_factor: float | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    folder = Path(source).expanduser()
    file = folder / "params.json"
    useless = ConfigError(
        f"`rope_factor` is {rope_factor}, but has no effect on {str(source)!r}: only a source in "
        "Meta's layout with `use_scaled_rope` is scaled by it. Leave it out."
    )
    if not file.is_file() or (folder / "config.json").exists():
        if rope_factor is not None:
            raise useless
        return load_model(source), load_tokenizer(source)
    parts = sorted(folder.glob("consolidated.*.safetensors"))
    if not parts:
        raise CheckpointError(
            f"{str(source)!r} has Meta's `params.json`, but no consolidated.*.safetensors. Files "
            "of the kind .pth are pickles, which are never loaded: save them as safetensors."
        )
    with explained("weights", source):
        params = read_json(file)
        for part in parts:
            open_regular(part).close()  # a pipe would be waited for
        tensors = merge_meta_parts([load_file(part) for part in parts], params)
        if rope_factor is not None and not params.get("use_scaled_rope"):
            raise useless
        model = llama_from_meta(
            tensors, params, rope_factor=8.0 if rope_factor is None else rope_factor
        )
    if not (folder / "tokenizer.json").is_file():
        return model, None
    with explained("tokenizer", source):
        check_files(folder, source)
        return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
