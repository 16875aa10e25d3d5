"""Conversations as token ids: the checkpoint's template, and tokens kept from before."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from hanol.engines._engine import Message
from hanol.errors import EngineError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_REMEMBERED = 64  # conversations whose tokens are kept
# Texts on both sides of a special token; a tokenizer that splits there splits the same each time.
_PROBES = ("", "a", " a", "\nuser\n", "한국어", "  two\n\n", "1,234")


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items (or characters) two sequences have in common at their beginning."""
    longest = min(len(a), len(b))
    if a[:longest] == b[:longest]:
        return longest
    # The first length at which they differ, by comparisons of whole pieces.
    return bisect_left(range(longest), True, key=lambda n: a[: n + 1] != b[: n + 1])


@dataclass(frozen=True)
class _Encoded:
    text: str
    ids: list[int]
    cuts: list[tuple[int, int]]  # ends of special tokens: (characters, tokens) before


class ChatTokens:
    """Renders and tokenizes conversations.

    A text that begins as an earlier one is tokenized only from the last special token on that both
    have, where the tokenizer provably does not look across special tokens.

    Args:
        tokenizer: Of the checkpoint.
        template: In the place of the checkpoint's own: "chatml", or a Jinja template.
        name: Of the engine, for messages.
    """

    def __init__(self, tokenizer: Any, template: str | None, name: str) -> None:
        self._tokenizer = tokenizer
        self._template = CHATML if template == "chatml" else template
        self._name = name
        self._remembered: OrderedDict[str, _Encoded] = OrderedDict()
        self._splits: dict[int, bool] = {}

    def render(self, messages: Sequence[Message], *, answer: bool = True) -> str:
        """The conversation as text, up to where the answer begins (or, without, its own end).

        Raises:
            EngineError: The checkpoint has no chat template, or it refuses the conversation.
        """
        if self._template is None and not self._tokenizer.chat_template:
            raise EngineError(
                f"The checkpoint {self._name!r} has no chat template, so it does not know how a "
                f"conversation is written. Name it as 'chatml:{self._name}' to speak chatml, or "
                "pass the Jinja template that it was trained with as `chat_template`."
            )
        try:
            text: str = self._tokenizer.apply_chat_template(
                [message.to_dict() for message in messages],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=answer,
            )
        except (TemplateError, ValueError) as err:
            roles = ", ".join(message.role for message in messages)
            raise EngineError(
                f"The chat template of {self._name!r} refuses a conversation of {roles}: {err}."
            ) from err
        return text

    def encode(self, text: str) -> list[int]:
        """The token ids of a rendered text, the same as the tokenizer gives for it as a whole."""
        chars, tokens, before = 0, 0, None
        for entry in self._remembered.values():
            shared = common_prefix(entry.text, text)
            # A special token that the texts share to its end, and what follows does not change it.
            at = bisect_left(entry.cuts, (shared, 0)) - 1
            if at >= 0 and entry.cuts[at][0] > chars:
                (chars, tokens), before = entry.cuts[at], entry
        made = self._encode_from(text, chars, before, tokens)
        if before is not None and chars == before.cuts[-1][0]:
            self._remembered.pop(before.text, None)  # the new text goes on from it
        self._remembered[text] = made
        self._remembered.move_to_end(text)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return made.ids

    def _encode_from(self, text: str, chars: int, before: _Encoded | None, tokens: int) -> _Encoded:
        if not self._tokenizer.is_fast:
            return _Encoded(
                text, list(self._tokenizer(text, add_special_tokens=False).input_ids), []
            )
        rest = self._tokenizer(text[chars:], add_special_tokens=False, return_offsets_mapping=True)
        ids = list(rest.input_ids)
        cuts = [
            (chars + end, tokens + i + 1)
            for i, (token, (_, end)) in enumerate(zip(ids, rest.offset_mapping, strict=True))
            if self._splits_at(token)
        ]
        if before is None:
            return _Encoded(text, ids, cuts)
        kept = before.cuts[: bisect_left(before.cuts, (chars, tokens)) + 1]
        return _Encoded(text, before.ids[:tokens] + ids, kept + cuts)

    def _splits_at(self, token: int) -> bool:
        """Whether text after this token is tokenized as if it stood alone."""
        if token not in self._splits:
            every = self._tokenizer.added_tokens_decoder
            added = every.get(token)
            self._splits[token] = (
                added is not None
                and not (added.lstrip or added.rstrip or added.single_word or added.normalized)
                and sum(added.content in other.content for other in every.values()) == 1
                and self._is_additive(added.content)
            )
        return self._splits[token]

    def _is_additive(self, special: str) -> bool:
        def encode(text: str) -> list[int]:
            return list(self._tokenizer(text, add_special_tokens=False).input_ids)

        return all(
            encode(left + special + right) == encode(left + special) + encode(right)
            for left in _PROBES
            for right in _PROBES
        )
