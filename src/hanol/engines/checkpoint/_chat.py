"""Conversations as token ids: the checkpoint's template, and tokens kept from before."""

import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from hanol import models
from hanol.engines._calls import described
from hanol.engines._request import Message, ToolSchema
from hanol.errors import EngineError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_REMEMBERED = 1 << 24  # characters whose tokens are kept
# Texts on both sides of a special token; a tokenizer that splits there splits the same each time.
_PROBES = ("", "a", " a", "\nuser\n", "한국어", "  two\n\n", "1,234")


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items (or characters) two sequences have in common at their beginning."""
    longest = min(len(a), len(b))
    if a[:longest] == b[:longest]:
        return longest
    # The first length at which they differ, by comparisons of whole pieces.
    return bisect_left(range(longest), True, key=lambda n: a[: n + 1] != b[: n + 1])


class Encoded(NamedTuple):
    """The tokens of a text."""

    text: str
    ids: list[int]
    cuts: list[tuple[int, int]]  # ends of its special tokens, in characters and in tokens


class ChatTokens:
    """Renders and tokenizes conversations.

    A text is tokenized piece by piece, cut behind the special tokens across which the tokenizer
    provably does not look; pieces that came before are not tokenized again. The template "chatml",
    or any other one, takes the place of the checkpoint's own; `takes_parts` says that this reads
    contents as parts, images among them.
    """

    def __init__(
        self, tokenizer: Any, template: str | None, name: str, *, takes_parts: bool = False
    ) -> None:
        self.takes_parts = takes_parts
        self._tokenizer = tokenizer
        self._template = CHATML if template == "chatml" else template
        self._name = name
        self._remembered: OrderedDict[str, list[int]] = OrderedDict()  # by piece, latest last
        self._chars = 0
        added = list(tokenizer.added_tokens_decoder.values()) if tokenizer.is_fast else []
        borders = [
            re.escape(token.content)
            for token in added
            if not (token.lstrip or token.rstrip or token.single_word or token.normalized)
            and sum(token.content in other.content for other in added) == 1
        ]
        self._borders = re.compile("|".join(borders) or "(?!)")
        self._splits: dict[str, bool] = {}

    @property
    def has_template(self) -> bool:
        """Whether it is known how a conversation is written."""
        return bool(self._template or self._tokenizer.chat_template)

    def render(
        self, messages: Sequence[Message], *, answer: bool = True, tools: Sequence[ToolSchema] = ()
    ) -> str:
        """The conversation as text, up to where the answer begins (or, without, its own end)."""
        if not self.has_template:
            raise EngineError(
                f"The checkpoint {self._name!r} has no chat template, so it does not know how a "
                f"conversation is written. Name it as 'chatml:{self._name}' to speak chatml, or "
                "pass the Jinja template that it was trained with as `chat_template`."
            )
        text = self._render(messages, answer, tools)
        if tools and text == self._render(messages, answer, ()):
            raise EngineError(
                f"The chat template of {self._name!r} does not tell the model of `tools`. Describe "
                "them in the system message, or use a checkpoint that was trained to call tools."
            )
        return text

    def _render(
        self, messages: Sequence[Message], answer: bool, tools: Sequence[ToolSchema]
    ) -> str:
        try:
            return models.render_chat(
                self._tokenizer,
                [message.to_dict(parts=self.takes_parts) for message in messages],
                what=self._name,
                chat_template=self._template,
                tools=[described(tool) for tool in tools] or None,
                add_generation_prompt=answer,
            )
        # A template is a program of the checkpoint: it may raise anything, on any conversation.
        except Exception as err:
            roles = ", ".join(message.role for message in messages)
            raise EngineError(
                f"The chat template of {self._name!r} refuses a conversation of {roles}: "
                f"{str(err).rstrip('.')}. Mend it, or name the checkpoint as "
                f"'chatml:{self._name.removeprefix('chatml:')}' to speak chatml instead."
            ) from err

    def encode(self, text: str) -> Encoded:
        """The tokens of a rendered text, the same as the tokenizer gives for it as a whole."""
        found = self._borders.finditer(text)
        ends = [special.end() for special in found if self._is_split_at(special[0])]
        starts = [0, *ends]
        pieces = [text[a:b] for a, b in zip(starts, [*ends, len(text)], strict=True)]
        unknown = [piece for piece in dict.fromkeys(pieces) if piece not in self._remembered]
        if unknown:
            self._remembered.update(zip(unknown, self._tokenized(unknown), strict=True))
            self._chars += sum(map(len, unknown))
        ids: list[int] = []
        cuts = []
        for piece, start in zip(pieces, starts, strict=True):
            if start:
                cuts.append((start, len(ids)))
            ids += self._remembered[piece]
            self._remembered.move_to_end(piece)
        while self._chars > _REMEMBERED:
            oldest, _ = self._remembered.popitem(last=False)
            self._chars -= len(oldest)
        return Encoded(text, ids, cuts)

    def marks(self, messages: Sequence[Message], encoded: Encoded) -> tuple[int, ...]:
        """Numbers of tokens after which others may continue: system message and last message.

        The tokens where an answer begins may change with the answer, those before do not.
        """
        found = {self._after(encoded, messages[-1].text)}
        if messages[0].role == "system" and len(messages) > 1:
            found.add(self._after(encoded, messages[0].text, first=True))
        return tuple(sorted(found - {0}))

    def _after(self, encoded: Encoded, content: str, *, first: bool = False) -> int:
        """Tokens up to the special token that ends a message; 0 when it is unknown."""
        content = content.strip()
        find = encoded.text.find if first else encoded.text.rfind
        if not content or (at := find(content)) < 0:
            return 0
        after = bisect_left(encoded.cuts, (at + len(content) + 1,))
        return encoded.cuts[after][1] if after < len(encoded.cuts) else 0

    def _tokenized(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer(texts, add_special_tokens=False).input_ids

    def _is_split_at(self, special: str) -> bool:
        """Whether text after this token is tokenized as if it stood alone."""
        if special not in self._splits:
            left = self._tokenized([text + special for text in _PROBES])
            right = self._tokenized(list(_PROBES))
            both = self._tokenized([a + special + b for a in _PROBES for b in _PROBES])
            self._splits[special] = both == [a + b for a in left for b in right]
        return self._splits[special]
