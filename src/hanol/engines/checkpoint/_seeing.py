"""Loading image-text models: ours, NVLM-D-72B's layout, and those of transformers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import cached_file, is_torchvision_available

from hanol import models
from hanol.engines.checkpoint._sight import OURS
from hanol.errors import CheckpointError, require

_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_OFFICIAL = "NVLM_D"
_patching = threading.Lock()


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
        with _without_videos():
            processor = AutoProcessor.from_pretrained(
                place, revision=revision, trust_remote_code=False
            )
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


class _NoVideos(dict[str, Any]):
    """The part of a processor that reads videos, where there is none; nothing is asked of it.

    A dictionary, as transformers shows processors as JSON.
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        return cls()


@contextmanager
def _without_videos() -> Iterator[None]:
    """Let processors that also read videos load where torchvision, which videos need, is missing.

    transformers asks for each part of a processor by its kind, and then for its class.
    """
    if is_torchvision_available():
        yield
        return
    from transformers.processing_utils import MODALITY_TO_AUTOPROCESSOR_MAPPING, ProcessorMixin

    names = type(MODALITY_TO_AUTOPROCESSOR_MAPPING)._MAPPING_NAMES
    kind, check = names["video_processor"], ProcessorMixin.check_argument_for_proper_class

    def checked(self: Any, name: str, part: Any) -> Any:
        return _NoVideos if isinstance(part, _NoVideos) else check(self, name, part)

    with _patching:
        names["video_processor"] = (__name__, _NoVideos.__name__)
        ProcessorMixin.check_argument_for_proper_class = checked
        try:
            yield
        finally:
            names["video_processor"] = kind
            ProcessorMixin.check_argument_for_proper_class = check


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
