"""Images of a conversation: what a processor makes of them, and what a model keeps of them.

A prompt with images goes through the model in one pass of its own, and is then a row like any
other. In what is kept of earlier prompts one token stands for the images themselves, so that equal
texts with other images are told apart.

Shape suffixes: B rows, T tokens.
"""

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from hanol.attention import CACHE_NAME
from hanol.engines._request import ImagePart, Message, TextPart, ToolSchema
from hanol.engines.checkpoint._chat import ChatTokens
from hanol.errors import EngineError, HanolError

if TYPE_CHECKING:
    from hanol.multimodal import Vision

_PROMPTS = 4  # of which the tiles are kept
_LOOKS = 16  # of which the model's view is kept
OURS = "nvlm"


@dataclass(frozen=True, eq=False)
class Pictured:
    """A prompt with images.

    Attributes:
        ids: Its tokens.
        keys: The same, one of them replaced by a number for the images.
        digest: Of the images.
        end: Tokens up to the end of the last image.
        inputs: What the model takes, `input_ids` among it.
        count: Images.
    """

    ids: list[int]
    keys: list[int]
    digest: str
    end: int
    inputs: dict[str, Tensor]
    count: int


class Seen(NamedTuple):
    """What further tokens of a row need of its images.

    Attributes:
        vision: Keys and values of gated layers.
        shift: What positions are ahead of the number of tokens by.
        inputs: Other inputs of each pass.
    """

    vision: "Vision | None" = None
    shift: int = 0
    inputs: dict[str, Tensor] | None = None


class Sight:
    """Reads images for a model.

    `prompt` is called by whoever asks, the rest by the model's thread.
    """

    def __init__(
        self, model: Any, processor: Any, chat: ChatTokens, name: str, max_tiles: int | None = None
    ) -> None:
        self._model, self._processor, self._chat, self._name = model, processor, chat, name
        self._max_tiles = max_tiles
        self._ours = model.config.model_type == OURS
        self._prompts: OrderedDict[Any, Pictured] = OrderedDict()
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._joined: tuple[tuple[int, ...], Vision | None] = ((), None)
        self._turning = [part for part in model.modules() if hasattr(part, "rope_deltas")]
        self._takes = frozenset(inspect.signature(model.forward).parameters)

    # -- before the model

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema] = (), prefill: str = ""
    ) -> Pictured:
        """The tokens of a conversation with images.

        Raises:
            EngineError: There is no template, or the processor refuses text or images.
            DataError: An image cannot be read.
        """
        from hanol.multimodal import read_image

        raw = [part.data for one in messages for part in one.images]
        digest = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in raw)).hexdigest()
        key = (digest, str([one.to_dict(parts=True) for one in messages]), str(tools), prefill)
        if (known := self._prompts.get(key)) is not None:
            return known
        pictures = [read_image(data) for data in raw]
        try:
            text = self._render(messages, tools) + prefill
            inputs = self._inputs(text, pictures)
        except HanolError:
            raise
        # A processor is a program of somebody else, too.
        except Exception as err:
            raise EngineError(
                f"The processor of {self._name!r} refuses a prompt with {len(raw)} images: "
                f"{str(err).rstrip('.')}. Leave markers of images out of the text."
            ) from err
        made = self._pictured(inputs, digest, len(raw))
        self._prompts[key] = made
        while len(self._prompts) > _PROMPTS:
            self._prompts.popitem(last=False)
        return made

    def _render(self, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> str:
        if self._chat.takes_parts:
            return self._chat.render(messages, tools=tools)
        marker = "<image>" if self._ours else getattr(self._processor, "image_token", None)
        if marker is None:
            raise EngineError(
                f"The processor of {self._name!r} has no image token, so it is not known where an "
                "image stands in a text. Leave its own chat template in place."
            )
        return self._chat.render(
            [_flat(message, f"{marker}\n") for message in messages], tools=tools
        )

    def _inputs(self, text: str, pictures: list[Any]) -> dict[str, Tensor]:
        if self._ours:
            made = self._processor(
                text, pictures, add_special_tokens=False, max_tiles=self._max_tiles
            )
        else:
            made = self._processor(
                text=[text], images=[pictures], return_tensors="pt", add_special_tokens=False
            )
        return {name: x for name, x in made.items() if isinstance(x, Tensor)}

    def _pictured(self, inputs: dict[str, Tensor], digest: str, count: int) -> Pictured:
        ids: list[int] = inputs["input_ids"][0].tolist()
        if (spans := inputs.get("tile_spans")) is not None and self._image_token is None:
            places = [i for i, (start, stop) in enumerate(spans[0].tolist()) if stop - start == 1]
            places += [i for i, (_, stop) in enumerate(spans[0].tolist()) if stop][:1]
        else:
            places = [i for i, token in enumerate(ids) if token == self._image_token]
        places = places or [0, len(ids) - 1]
        keys = ids.copy()
        keys[min(places)] = -1 - int(digest[:14], 16)
        return Pictured(ids, keys, digest, max(places) + 1, inputs, count)

    @property
    def _image_token(self) -> int | None:
        config = self._model.config
        for holder in (config, self._processor):
            for name in ("image_token_id", "image_token_index"):
                if isinstance(token := getattr(holder, name, None), int):
                    return token
        return None

    # -- in the model's thread

    def known(self, pictured: Pictured) -> Seen | None:
        """What a model keeps of images that it has seen."""
        return self._seen.get(pictured.digest)

    def look(self, pictured: Pictured) -> tuple[Any, Seen]:
        """Run a prompt but for its last token: its cache, and what further tokens need."""
        length = len(pictured.ids)
        if pictured.end >= length:
            raise EngineError(
                f"The prompt of {self._name!r} ends in an image: let a text follow it."
            )
        device, dtype = self._model.device, self._model.dtype
        inputs: dict[str, Any] = {}
        for name, x in pictured.inputs.items():
            is_row = x.ndim >= 2 and x.shape[:2] == (1, length) and not name.startswith("pixel")
            x = (x[:, : length - 1] if is_row else x).to(device)
            inputs[name] = x.to(dtype) if x.is_floating_point() else x
        for part in self._turning:
            part.rope_deltas = None  # of another prompt
        if "logits_to_keep" in self._takes:
            inputs["logits_to_keep"] = 1
        vision = None
        if self._ours:
            counts = (inputs.pop(n) for n in ("tiles_per_image", "images_per_row"))
            vision = self._model.encode_images(inputs.pop("pixel_values"), *counts)
            inputs["vision"] = vision
            vision = vision.seen()
        outputs = self._model(**inputs, use_cache=True)
        shift = 0
        for part in self._turning:
            if part.rope_deltas is not None:
                shift = int(part.rope_deltas.flatten()[0])
        mask = pictured.inputs.get("cross_attention_mask")
        later = None if mask is None else {"cross_attention_mask": mask[:, -1:].to(device)}
        seen = Seen(vision, shift, later)
        self._seen[pictured.digest] = seen
        while len(self._seen) > _LOOKS:
            self._seen.popitem(last=False)
        return getattr(outputs, CACHE_NAME), seen

    def inputs(self, seen: Sequence[Seen | None], fed: Sequence[int], count: int) -> dict[str, Any]:
        """What rows need besides their caches: positions, and images for gated layers.

        Args:
            seen: Of each row, or None for a row without images.
            fed: Tokens of each row that the model has seen.
            count: Tokens of each row in this pass, padding included.
        """
        made: dict[str, Any] = {}
        if self._turning:
            device = self._model.device
            shift_B = torch.tensor([0 if one is None else one.shift for one in seen])
            at_B = torch.tensor(fed) + shift_B
            made["position_ids"] = (at_B[:, None] + torch.arange(count)).to(device)
        for one in seen:  # models with such inputs run one row at a time
            made |= (one.inputs or {}) if one is not None else {}
        if self._ours and (vision := self._vision(seen)) is not None:
            made["vision"] = vision
        return made

    def _vision(self, seen: Sequence[Seen | None]) -> "Vision | None":
        """The images of rows in one batch, made anew only when others come or go."""
        rows = [None if one is None else one.vision for one in seen]
        found = [one for one in rows if one is not None and one.layers]
        if not found:
            return None
        key = tuple(map(id, rows))
        if self._joined[0] != key:
            all_of = [found[0].blank() if one is None or not one.layers else one for one in rows]
            self._joined = (key, all_of[0].join(*all_of[1:]))
        return self._joined[1]


def has_images(messages: Sequence[Message]) -> bool:
    """Whether a conversation has any."""
    return any(one.images for one in messages)


def _flat(message: Message, marker: str) -> Message:
    """A message whose images are marked in its text."""
    if isinstance(message.content, str):
        return message
    text = "".join(
        marker if isinstance(part, ImagePart) else part.text
        for part in message.content
        if isinstance(part, ImagePart | TextPart)
    )
    return Message(message.role, text, message.tool_calls, message.tool_call_id)
