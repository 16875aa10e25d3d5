"""Conversations as token ids: the checkpoint's template, and tokens kept from before."""

import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jinja2 import TemplateError

from hanol.engines._calls import described
from hanol.engines._engine import Message, ToolSchema
from hanol.errors import EngineError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_REMEMBERED = 1 << 24  # characters of conversations whose tokens are kept
# Texts on both sides of a special token; a tokenizer that splits there splits the same each time.
_PROBES = ("", "a", " a", "\nuser\n", "한국어", "  two\n\n", "1,234")


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items (or characters) two sequences have in common at their beginning."""
    longest = min(len(a), len(b))
    if a[:longest] == b[:longest]:
        return longest
    # The first length at which they differ, by comparisons of whole pieces.
    return bisect_left(range(longest), True, key=lambda n: a[: n + 1] != b[: n + 1])


class Cut(NamedTuple):
    """The end of a special token: what comes after it is tokenized as if it stood alone."""

    chars: int  # of the text before it
    tokens: int
    key: int  # hash of the text before it


@dataclass(frozen=True, eq=False)
class Encoded:
    """The tokens of a text, and where texts that begin alike have the same."""

    text: str
    ids: list[int]
    cuts: list[Cut]


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
        self._remembered: OrderedDict[str, Encoded] = OrderedDict()
        self._chars = 0
        self._at: dict[int, Encoded] = {}  # by the keys of their cuts
        self._added = dict(tokenizer.added_tokens_decoder) if tokenizer.is_fast else {}
        self._splits: dict[int, bool] = {}
        self._ends = re.compile("(?!)")  # of tokens at which texts were cut

    def render(
        self, messages: Sequence[Message], *, answer: bool = True, tools: Sequence[ToolSchema] = ()
    ) -> str:
        """The conversation as text, up to where the answer begins (or, without, its own end).

        Raises:
            EngineError: The checkpoint has no chat template, it refuses the conversation, or does
                not tell the model of tools.
        """
        if self._template is None and not self._tokenizer.chat_template:
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
            text: str = self._tokenizer.apply_chat_template(
                [message.to_dict() for message in messages],
                chat_template=self._template,
                tools=[described(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=answer,
            )
        except (TemplateError, ValueError) as err:
            roles = ", ".join(message.role for message in messages)
            raise EngineError(
                f"The chat template of {self._name!r} refuses a conversation of {roles}: {err}."
            ) from err
        return text

    def encode(self, text: str) -> Encoded:
        """The tokens of a rendered text, the same as the tokenizer gives for it as a whole."""
        made = self._remembered.get(text)
        if made is None:
            before, cut = self._begins_as(text)
            made = self._encode_from(text, before, cut)
            self._remembered[text] = made
            self._chars += len(text)
            self._at.update((cut.key, made) for cut in made.cuts)
            if before is not None and cut == before.cuts[-1]:
                self._forget(before.text)  # the new text goes on from it
        self._remembered.move_to_end(text)
        while self._chars > _REMEMBERED:
            self._forget(next(iter(self._remembered)))
        return made

    def marks(self, messages: Sequence[Message], encoded: Encoded) -> tuple[int, ...]:
        """Where other conversations may go on: after the system message, and after the last one.

        The tokens where an answer begins may change with the answer, those before do not.

        Args:
            messages: The conversation.
            encoded: Its tokens.

        Returns:
            Numbers of tokens.
        """
        found = {self._after(encoded, messages[-1].text)}
        if messages[0].role == "system" and len(messages) > 1:
            found.add(self._after(encoded, messages[0].text, first=True))
        return tuple(sorted(found - {0}))

    def _after(self, encoded: Encoded, content: str, *, first: bool = False) -> int:
        """Tokens up to the special token that ends a message; 0 when it cannot be told."""
        content = content.strip()
        find = encoded.text.find if first else encoded.text.rfind
        if not content or (at := find(content)) < 0:
            return 0
        after = bisect_left(encoded.cuts, (at + len(content) + 1,))
        return encoded.cuts[after].tokens if after < len(encoded.cuts) else 0

    def _forget(self, text: str) -> None:
        old = self._remembered.pop(text, None)
        if old is not None:
            self._chars -= len(text)
            for cut in old.cuts:
                if self._at.get(cut.key) is old:
                    del self._at[cut.key]

    def _begins_as(self, text: str) -> tuple[Encoded | None, Cut]:
        """An earlier text that begins as this one up to a special token, the last possible one."""
        for found in reversed(list(self._ends.finditer(text))):
            chars = found.end()
            before = self._at.get(hash(text[:chars]))
            if before is not None and before.text[:chars] == text[:chars]:
                cut = before.cuts[bisect_left(before.cuts, (chars,))]
                if cut.chars == chars:
                    return before, cut
        return None, Cut(0, 0, 0)

    def _encode_from(self, text: str, before: Encoded | None, cut: Cut) -> Encoded:
        if not self._tokenizer.is_fast:
            return Encoded(
                text, list(self._tokenizer(text, add_special_tokens=False).input_ids), []
            )
        chars, tokens, _ = cut
        rest = self._tokenizer(text[chars:], add_special_tokens=False, return_offsets_mapping=True)
        ids = list(rest.input_ids)
        ends = [
            (chars + rest.offset_mapping[i][1], tokens + i + 1)
            for i, token in enumerate(ids)
            if token in self._added and self._splits_at(token)
        ]
        cuts = [Cut(end, count, hash(text[:end])) for end, count in ends]
        if before is None:
            return Encoded(text, ids, cuts)
        kept = before.cuts[: before.cuts.index(cut) + 1]
        return Encoded(text, before.ids[:tokens] + ids, kept + cuts)

    def _splits_at(self, token: int) -> bool:
        """Whether text after this token is tokenized as if it stood alone."""
        if token not in self._splits:
            added = self._added[token]
            self._splits[token] = (
                not (added.lstrip or added.rstrip or added.single_word or added.normalized)
                and sum(added.content in other.content for other in self._added.values()) == 1
                and self._is_additive(added.content)
            )
            words = [self._added[one].content for one, splits in self._splits.items() if splits]
            self._ends = re.compile("|".join(map(re.escape, words)) or "(?!)")
        return self._splits[token]

    def _is_additive(self, special: str) -> bool:
        def encode(texts: list[str]) -> list[list[int]]:
            ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False).input_ids
            return ids

        left = encode([left + special for left in _PROBES])
        right = encode(list(_PROBES))
        both = encode([left + special + right for left in _PROBES for right in _PROBES])
        return both == [a + b for a in left for b in right]
