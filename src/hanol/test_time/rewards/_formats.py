"""How process reward models of six makers read a problem and its steps.

Each text becomes tokens by itself, and the tokens are joined: a text that is joined first lets a
separator merge with what stands before it, so that training and scoring see different tokens (the
F1 of a known benchmark fell by ten points that way). What a step says is never read as a control
token. A format says where the value of each step is read, and how its logit comes out of what the
model returns; a score is the sigmoid of that logit. Where the makers take a softmax over two
classes, the logit is their difference.

Shape suffixes: N steps, V vocabulary, K classes.
"""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForTokenClassification,
    PreTrainedTokenizerBase,
    Qwen2Model,
    Qwen2PreTrainedModel,
)
from transformers.modeling_outputs import TokenClassifierOutput

from hanol import models
from hanol.errors import CheckpointError

# What texts are encoded between, so that they are no texts of their own.
_BEFORE, _AFTER = "\n", "x"
# Stand in a chat template for what a user and the model say: private characters, which no template
# changes. So a template never reads a stranger's text, and its control tokens are its own.
_SAID, _ANSWERED = "\ue000", "\ue001"


class StepInputs(NamedTuple):
    """A problem and its steps as tokens.

    Attributes:
        input_ids: The tokens.
        ends: Position at which the value of each step is read.
    """

    input_ids: tuple[int, ...]
    ends: tuple[int, ...]


class _ValueModel(Qwen2PreTrainedModel):
    """A Qwen2 whose last hidden states go through a head of its maker."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.make_head(config)
        self.post_init()

    def make_head(self, config: Any) -> None:
        """Add the modules of the head, under the maker's names."""
        raise NotImplementedError

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        """Logits at every token."""
        hidden = self.model(input_ids=input_ids, use_cache=use_cache).last_hidden_state
        return TokenClassifierOutput(logits=self.head(hidden))

    @property
    def head(self) -> nn.Module:
        """The module that makes logits of hidden states."""
        raise NotImplementedError


class Qwen2ForProcessRewardModel(_ValueModel):
    """Qwen2.5-Math-PRM: a head of two layers, with two classes."""

    def make_head(self, config: Any) -> None:
        """The head."""
        width = config.hidden_size
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    @property
    def head(self) -> nn.Module:
        """Two classes."""
        return self.score


class Qwen2ForPrmModel(_ValueModel):
    """Skywork-o1-Open-PRM: a value head on a causal model, whose own head it does not use."""

    _keys_to_ignore_on_load_unexpected: ClassVar = [r"lm_head\.weight"]

    def make_head(self, config: Any) -> None:
        """The value head, under TRL's name."""
        self.v_head = nn.ModuleDict({"summary": nn.Linear(config.hidden_size, 1)})

    @property
    def head(self) -> nn.Module:
        """One value."""
        return self.v_head["summary"]


class StepFormat:
    """A way of reading problems and steps.

    Args:
        tokenizer: The model's.
        separator: What follows each step; None is the format's own.

    Raises:
        CheckpointError: The tokenizer lacks the separator, or another token that the format needs.
    """

    name: ClassVar[str]
    own_separator: ClassVar[str]
    model_class: ClassVar[Any] = None  # None: a causal language model
    is_token: ClassVar[bool] = False  # whether the separator has to be one token
    key_mapping: ClassVar[dict[str, str] | None] = None

    def __init__(self, tokenizer: PreTrainedTokenizerBase, separator: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.separator = self.own_separator if separator is None else separator
        self.separator_ids = self._ids(self.separator, special=self.is_token)
        unknown = tokenizer.unk_token_id
        if (
            not self.separator_ids
            or (unknown is not None and unknown in self.separator_ids)
            or (self.is_token and len(self.separator_ids) > 1)
        ):
            raise CheckpointError(
                f"The tokenizer of this process reward model has no token for {self.separator!r}, "
                f"at which a model of the format {self.name!r} writes the value of a step. Take "
                "the tokenizer that the model was trained with, or another `format`."
            )
        self.classes = self._classes()

    def encode(self, problem: str, steps: Sequence[str]) -> StepInputs:
        """Tokens of a problem and its steps; the same for training and for scoring."""
        ids, ends = self._before(problem), list[int]()
        for number, step in enumerate(steps):
            ids = ids + self._step(step, number) + self.separator_ids
            ends.append(len(ids) - 1)
        return StepInputs(tuple(ids), tuple(ends))

    def logits(self, logits_NV: Tensor) -> Tensor:
        """logit_N: how likely the steps are right, from what the model returns at their ends."""
        logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
        if self.classes is None:
            return logits_NV[:, 0]
        right, wrong = self.classes
        return logits_NV[:, right] - logits_NV[:, wrong]

    def head(self, model: Any) -> nn.Module:
        """The module of a model that makes its logits: only the ends of steps go through it."""
        return model.get_output_embeddings()

    # -- what formats say

    def _classes(self) -> tuple[int, int] | None:
        """Columns of right and wrong; None where there is one column."""
        return None

    def _before(self, problem: str) -> list[int]:
        """Tokens before the first step."""
        raise NotImplementedError

    def _step(self, step: str, number: int) -> list[int]:
        """Tokens of a step, counted from 0, without the separator."""
        return self._ids(step)

    # -- tokens

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text as part of a longer one: none before it, and no space of the tokenizer.

        `special` reads control tokens: those of a template or a format. What models and strangers
        write has none.
        """
        ids, begin = self._plain(text, special), self._plain(_BEFORE, special)
        # A template is followed by what is said in it: some tokenizers cut line breaks otherwise
        # at the end of a text.
        end = self._plain(_BEFORE + _AFTER, special)[len(begin) :] if special else []
        joined = self._plain(_BEFORE + text + (_AFTER if special else ""), special)
        inner = joined[len(begin) : len(joined) - len(end)]
        # Most tokenizers give the same both ways. Those of the SentencePiece kind put a space
        # before every text; where text and line break merge, the first way is right.
        return inner if [*begin, *inner, *end] == joined else ids

    def _plain(self, text: str, special: bool) -> list[int]:
        options: Any = {
            "add_special_tokens": False,
            "verbose": False,
            "split_special_tokens": not special,
        }
        return list(self.tokenizer(text, **options).input_ids)

    def _one_of(self, text: str) -> int:
        """The last token of a text, as the makers' code takes it."""
        return list(self.tokenizer(text, verbose=False).input_ids)[-1]

    def _first(self, text: str) -> list[int]:
        """Tokens of the text that a model reads first, behind the begin token of its tokenizer."""
        begin = [i for i in self.tokenizer("").input_ids if i == self.tokenizer.bos_token_id]
        return begin[:1] + self._plain(text, special=False)

    def _template(self, chat: list[dict[str, str]], **options: Any) -> list[str]:
        """What a chat template writes before, between and after what is said in it."""
        if self.tokenizer.chat_template is None:
            raise CheckpointError(
                f"A process reward model of the format {self.name!r} needs a chat template, and "
                "its tokenizer has none. Put `chat_template.jinja` into the checkpoint."
            )
        text = str(models.render_chat(self.tokenizer, chat, **options))
        return re.split(f"[{_SAID}{_ANSWERED}]", text)


class NativeFormat(StepFormat):
    """Ours: a token classifier with one column, and the separator behind problem and steps."""

    name = "native"
    own_separator = "\n\n"
    model_class = AutoModelForTokenClassification

    def head(self, model: Any) -> nn.Module:
        """The classifier."""
        return model.score

    def _before(self, problem: str) -> list[int]:
        return self._first(problem) + self.separator_ids


class TokenFormat(NativeFormat):
    """HuggingFaceH4/Qwen2.5-Math-*-PRM, and what TRL's former trainer made: two classes."""

    name = "token-classification"

    def _classes(self) -> tuple[int, int]:
        return 1, 0


class ShepherdFormat(StepFormat):
    """peiyi9979/math-shepherd-mistral-7b-prm: a causal model that answers "+" or "-" at "ки"."""

    name = "math-shepherd"
    own_separator = " ки"

    def _classes(self) -> tuple[int, int]:
        return self._one_of("+"), self._one_of("-")

    def _before(self, problem: str) -> list[int]:
        return self._first(problem)

    def _step(self, step: str, number: int) -> list[int]:
        return self._ids((" " if number == 0 else "\n") + step)


class ConversationFormat(StepFormat):
    """RLHFlow/Llama3.1-8B-PRM-*: each step is a user's turn, which the model answers "+" or "-"."""

    name = "conversation"
    own_separator = "+"

    def _classes(self) -> tuple[int, int]:
        return self._one_of("+"), self._one_of("-")

    def encode(self, problem: str, steps: Sequence[str]) -> StepInputs:
        """Tokens of the conversation; each value is read where "+" is predicted."""
        chat = [{"role": "user", "content": _SAID}, {"role": "assistant", "content": _ANSWERED}]
        texts = self._template(chat * len(steps)) if steps else [""]
        if len(texts) != 2 * len(steps) + 1:
            raise CheckpointError(
                "The chat template of this process reward model leaves out turns of a long "
                "conversation: the values of its steps cannot be found."
            )
        ids, ends = self._ids(texts[0], special=True), list[int]()
        for number, step in enumerate(steps):
            said = f"{problem} {step}" if number == 0 else step
            before, after = texts[2 * number + 1 : 2 * number + 3]
            asked = before.rstrip(" ")  # a space of the template is part of the answer's token
            ids += self._ids(said.strip()) + self._ids(asked, special=True)
            answer = self._ids(before[len(asked) :] + self.separator)
            ends.append(len(ids) + len(answer) - 2)
            ids += answer + self._ids(after, special=True)
        return StepInputs(tuple(ids), tuple(ends))


class SkyworkFormat(StepFormat):
    """Skywork/Skywork-o1-Open-PRM-Qwen-2.5-*: a value at the line break behind each step."""

    name = "skywork"
    own_separator = "\n"
    model_class = Qwen2ForPrmModel
    key_mapping: ClassVar = {r"^pretrained_model\.": ""}

    def __init__(self, tokenizer: PreTrainedTokenizerBase, separator: str | None = None) -> None:
        super().__init__(tokenizer, separator)
        self.separator_ids = self.separator_ids[-1:]  # as its makers do

    def head(self, model: Any) -> nn.Module:
        """The value head."""
        return model.head

    def _before(self, problem: str) -> list[int]:
        begin = self.tokenizer.bos_token_id
        ids = self._first(problem + "\n")
        return ids if begin is None or ids[:1] == [begin] else [int(begin), *ids]


class ExtraTokenFormat(StepFormat):
    """Qwen/Qwen2.5-Math-PRM-*: a conversation with "<extra_0>" behind each step of the answer."""

    name = "qwen-math"
    own_separator = "<extra_0>"
    is_token = True
    model_class = Qwen2ForProcessRewardModel
    system: ClassVar = "Please reason step by step, and put your final answer within \\boxed{}."

    def head(self, model: Any) -> nn.Module:
        """The head of two layers."""
        return model.head

    def _classes(self) -> tuple[int, int]:
        return 1, 0

    def _before(self, problem: str) -> list[int]:
        chat = [{"role": "system", "content": self.system}, {"role": "user", "content": _SAID}]
        before, after = self._template(chat, add_generation_prompt=True)
        middle = self._ids(problem)
        return self._ids(before, special=True) + middle + self._ids(after, special=True)


FORMATS: dict[str, type[StepFormat]] = {
    one.name: one
    for one in (
        NativeFormat,
        TokenFormat,
        ShepherdFormat,
        ConversationFormat,
        SkyworkFormat,
        ExtraTokenFormat,
    )
}
