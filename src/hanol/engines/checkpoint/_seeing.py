"""Loading image-text models: ours, NVLM-D-72B's layout, and those of transformers."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import cached_file

from hanol import models
from hanol.engines.checkpoint._sight import OURS
from hanol.errors import CheckpointError, require

_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_OFFICIAL = "NVLM_D"


class Seeing(NamedTuple):
    """A model that sees, and what makes its inputs."""

    model: Any
    tokenizer: Any
    processor: Any


def load_seeing(
    spec: str, dtype: torch.dtype | None, device: str, revision: str | None, mask_fix: str
) -> Seeing | None:
    """The model of a checkpoint that reads images; None for any other.

    An image-text model without the files of a processor is loaded as a model of text.

    Raises:
        CheckpointError: Model or processor cannot be loaded.
    """
    kind = models.model_type(spec, revision=revision)
    if kind not in (OURS, _OFFICIAL, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES):
        return None
    if models.adapter_of(spec, revision=revision) is not None:
        return None
    place = models.resolve(spec)
    if kind != _OFFICIAL and not any(_has(place, name, revision) for name in _PROCESSORS):
        return None
    require("PIL", extra="vision", feature=f"Reading images with {spec!r}")
    # After the line above: these need Pillow, or are not needed without images.
    from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    from hanol.multimodal import NvlmForConditionalGeneration, NvlmProcessor, fix_mllama_masks

    if kind == _OFFICIAL:
        model = NvlmForConditionalGeneration.from_pretrained(
            place, revision=revision, dtype=dtype or torch.float32
        ).to(device)
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
        return Seeing(model, tokenizer, NvlmProcessor.for_model(model, tokenizer))
    try:
        processor = AutoProcessor.from_pretrained(place, revision=revision, trust_remote_code=False)
    # Whatever its files make it raise.
    except Exception as err:
        raise CheckpointError(
            f"The processor of {spec!r} cannot be loaded: {str(err).strip().splitlines()[0]}"
        ) from err
    model = models.load_model(
        spec, dtype=dtype, device=device, revision=revision,
        model_class=AutoModelForImageTextToText,
    )  # fmt: skip
    if mask_fix == "on":
        fix_mllama_masks(model)
    return Seeing(model, models.load_tokenizer(spec, revision=revision), processor)


def _has(place: str, name: str, revision: str | None) -> bool:
    if Path(place).is_dir():
        return (Path(place) / name).is_file()
    if Path(place).is_file():
        return False
    options: Any = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    return bool(cached_file(place, name, revision=revision, **options))
