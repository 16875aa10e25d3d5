"""Rows of chat files as token sequences, with labels on what the assistant writes alone.

A template with `{% generation %}` marks says itself what the assistant writes. Of any other one a
turn is what the rendered conversation has more than the prompt before it, as an engine renders
that; a template that writes earlier turns in another way than the last (Qwen3 drops their thoughts)
makes several rows of one conversation, with each turn in exactly one of them.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from hanol import models
from hanol.control import ControlTokens
from hanol.errors import CheckpointError, DataError
from hanol.rows import read_rows
from hanol.training._ranking import RankingRow
from hanol.training._sft import SftRow
from hanol.training.finetuning._sft_recipe import MessagesSection
from hanol.training.pretraining._data import dataset_rows, is_held_out

_SUFFIXES = (".jsonl", ".json", ".parquet")
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
Chat = Sequence[Mapping[str, Any]]


class LeftOut(Exception):  # noqa: N818 - it is caught here and counted
    """A row that cannot be learned from; `reason` is the key under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class ChatData(NamedTuple):
    """Tokenized rows, held-out ones apart.

    Attributes:
        train: What is learned.
        held_out: What is only evaluated.
        rows: Rows that were read.
        left_out: Rows that cannot be learned from, by reason.
        examples: The first of each reason: where it is, and what is wrong.
    """

    train: list[Any]
    held_out: list[Any]
    rows: int
    left_out: dict[str, int]
    examples: dict[str, str]

    def left_out_text(self) -> str:
        """What was left out, in a sentence for each reason."""
        return "; ".join(
            f"{count:,} rows ({reason.replace('_', ' ')}): {self.examples[reason]}"
            for reason, count in self.left_out.items()
        )


def read_chats(
    data: MessagesSection, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> ChatData:
    """Read and tokenize all rows.

    Raises:
        DataError: A file is missing or damaged, or no row can be learned from.
    """
    encoder = Encoder(tokenizer, max_length)
    sides: tuple[list[Any], list[Any]] = ([], [])
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    kinds: set[type] = set()
    count = 0
    for place, row in data_rows(data):
        count += 1
        try:
            found = encoder.rows(row)
        except LeftOut as err:
            left_out[err.reason] += 1
            examples.setdefault(err.reason, f"{place}: {err}")
            continue
        sides[is_held_out(prompt_of(row), data.held_out)].extend(found)
        kinds |= set(map(type, found))
    if len(kinds) > 1:
        raise DataError("Some rows are conversations and some are rankings: train on one kind.")
    train, held_out = sides
    chats = ChatData(train, held_out, count, dict(left_out), examples)
    if not train:
        why = f" Left out: {chats.left_out_text()}" if left_out else ""
        raise DataError(
            f"None of {count:,} rows can be learned from.{why}"
            if count == sum(left_out.values())
            else f"All {len(held_out):,} usable rows are held out: lower `data.held_out`.{why}"
        )
    return chats


def data_rows(data: MessagesSection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of the data, each with its place for messages.

    Raises:
        DataError: A file or folder is missing, of another kind, or damaged.
    """
    if data.dataset is not None:
        rows = dataset_rows("datasets", data.dataset, data.split, data.revision)
        for number, row in enumerate(rows, start=1):
            yield f"{data.dataset!r}, row {number}", _without_nulls(row)
        return
    for file in _files(data):
        if file.suffix.casefold() == ".parquet":
            for number, row in enumerate(dataset_rows("parquet", str(file)), start=1):
                yield f"{str(file)!r}, row {number}", _without_nulls(row)
        else:
            for line, row in read_rows(file):
                yield f"{str(file)!r}, line {line}", row


class Encoder:
    """Turns rows into token sequences.

    Args:
        tokenizer: With a chat template, if rows have messages.
        max_length: Tokens of a sequence; longer ones are left out, as the end of an answer is what
            there is to learn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        self._control = ControlTokens.of(tokenizer, special_only=True)
        self._special = {number for number, token in added.items() if token.special}

    def rows(self, row: Mapping[str, Any]) -> list[Any]:
        """What is learned of a row: {"messages"} or {"prompt", "completion"}, each with "tools", or
        {"prompts", "continuations", "answers"}.

        A `prompt` and `completion` that are texts are taken as they are; lists of messages are
        rendered, and the assistant's turns in the completion learned.

        Raises:
            LeftOut: It cannot be learned from.
            DataError: The tokenizer has no chat template or no end token.
        """
        if "prompts" in row:
            return [self._ranking(row)]
        if "messages" in row:
            found = self._chat(self._messages(row, "messages"), 0, row.get("tools"))
        elif isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
            found = [self._text(row["prompt"], row["completion"])]
        elif "prompt" in row and "completion" in row:
            prompt = self._messages(row, "prompt")
            chat = [*prompt, *self._messages(row, "completion")]
            found = self._chat(chat, len(prompt), row.get("tools"))
        else:
            keys = ", ".join(map(repr, row))[:100]
            raise LeftOut(
                "malformed", f'it has {keys or "no keys"}, not "messages" or "prompt", "completion"'
            )
        longest = max((len(one.input_ids) for one in found), default=0)
        if longest > self._max_length:
            raise LeftOut("too_long", f"{longest:,} tokens, more than {self._max_length:,}")
        if not any(any(one.action_mask[1:]) for one in found):
            raise LeftOut("no_answer", "the assistant writes nothing in it")
        return found

    def _messages(self, row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """The conversation under a key: only the template and the assistant write special tokens.

        What others say often quotes strangers.
        """
        return [
            message
            if message["role"] == "assistant"
            else {**message, "content": self._broken(message["content"])}
            for message in _messages(row, key)
        ]

    def _broken(self, content: Any) -> Any:
        if isinstance(content, str):
            return self._control.escape(content, shapes=False)
        return [
            {**part, "text": self._broken(part["text"])}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]

    def _ranking(self, row: Mapping[str, Any]) -> RankingRow:
        """Which prompt each continuation follows."""
        keys = ("prompts", "continuations", "answers")
        prompts, continuations, answers = map(dict[str, Any](row).get, keys, [()] * 3)
        for key, texts in (("prompts", prompts), ("continuations", continuations)):
            if not isinstance(texts, list) or not all(isinstance(x, str) and x for x in texts):
                raise LeftOut("malformed", f"`{key}` is no list of texts, but {texts!r:.60}")
        _check_unicode([prompts, continuations])
        numbers = range(len(prompts))
        if not isinstance(answers, list) or len(answers) != len(continuations):
            raise LeftOut("malformed", f"`answers` is {answers!r:.60}: one for each continuation")
        if not all(answer in numbers for answer in answers):
            raise LeftOut(
                "malformed", f"`answers` are numbers of prompts from 0, not {answers!r:.60}"
            )
        found = RankingRow(
            tuple(tuple(prompt_ids(text, self._tokenizer)) for text in prompts),
            tuple(tuple(self._ids(text)) for text in continuations),
            tuple(answers),
        )
        if not found.is_learned:
            raise LeftOut("no_answer", "it has no continuation, or one prompt only")
        longest = max(map(len, found.texts)) + max(map(len, found.questions))
        if longest > self._max_length:
            raise LeftOut("too_long", f"{longest:,} tokens, more than {self._max_length:,}")
        return found

    def _text(self, prompt: str, completion: str) -> SftRow:
        _check_unicode([prompt, completion])
        read = prompt_ids(prompt, self._tokenizer)
        said = self._ids(completion) if completion.strip() else []
        if said and said[-1] != self._end:
            said.append(self._end)
        if not read:
            raise LeftOut("malformed", "the prompt is empty and there is no begin token")
        return SftRow((*read, *said), (False,) * len(read) + (True,) * len(said))

    def _chat(self, messages: Chat, first: int, tools: Any) -> list[SftRow]:
        template = self._tokenizer.chat_template
        if template is None:
            raise DataError(
                "The tokenizer has no chat template, so conversations cannot be rendered. Take a "
                "chat model, or put `chat_template.jinja` into the checkpoint."
            )
        if not any(m["role"] == "assistant" for m in messages[first:]):
            raise LeftOut("no_answer", "no message in it is the assistant's")
        if tools is not None and not isinstance(tools, list):
            raise LeftOut("malformed", f"`tools` is no list, but {tools!r:.60}")
        if not first and _MARK.search(str(template)):
            return [self._marked(messages, tools)]
        return [self._labelled(text, spans) for text, spans in self._turns(messages, first, tools)]

    def _marked(self, messages: Chat, tools: Any) -> SftRow:
        """By the marks of the template."""
        found: Any = self._render(
            messages, tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return SftRow(tuple(found["input_ids"]), tuple(map(bool, found["assistant_masks"])))

    def _turns(
        self, messages: Chat, first: int, tools: Any
    ) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """Texts, and where the assistant's turns are in them."""
        text, spans = "", list[tuple[int, int]]()
        for number, message in enumerate(messages):
            says = str(message.get("content") or "").strip() or message.get("tool_calls")
            if message["role"] != "assistant" or not says or number < max(first, 1):
                continue
            prompt = self._render(messages[:number], tools, add_generation_prompt=True)
            whole = self._render(messages[: number + 1], tools)
            if not whole.startswith(prompt):
                raise LeftOut(
                    "template_refused",
                    "the chat template asks for an answer in another way than it writes one "
                    f"({prompt[-40:]!r}): put {{% generation %}} marks into it",
                )
            end = len(whole.rstrip())  # a line break behind the end token is never written
            if spans and not prompt.startswith(text):
                yield text, spans
                spans = []
            text = whole[:end]
            spans.append((len(prompt), end))
        if spans:
            yield text, spans

    def _labelled(self, text: str, spans: Sequence[tuple[int, int]]) -> SftRow:
        """Tokens of a text, of which those within the spans are learned."""
        edges = [0, *(edge for span in spans for edge in span)]
        ids: list[int] = []
        mask: list[bool] = []
        if self._tokenizer.is_fast:
            found = self._tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            ids, offsets = found["input_ids"], found["offset_mapping"]
            inside = {edge for a, b in offsets for edge in range(a + 1, b)}
            mask = [any(s <= a < b <= e for s, e in spans) for a, b in offsets]
            if inside.intersection(edges):
                ids = []
        if not ids:  # a token across an edge: cut there, as an engine's prompt ends there
            mask = []
            for number, (start, end) in enumerate(pairwise(edges)):
                piece = self._ids(text[start:end])
                ids, mask = ids + piece, mask + [number % 2 == 1] * len(piece)
        if ids[-1] not in self._special:  # a template that does not write where a turn ends
            ids, mask = [*ids, self._end], [*mask, True]
        return SftRow(tuple(ids), tuple(mask))

    def _render(self, messages: Chat, tools: Any, **options: Any) -> Any:
        try:
            return models.render_chat(
                self._tokenizer, list(map(dict, messages)), tools=tools, **options
            )
        except CheckpointError:  # it would take as long for every row
            raise
        except Exception as err:  # whatever the template raises, TypeError and its own included
            cause = " ".join(str(err).split())[:200]
            raise LeftOut("template_refused", f"the chat template refuses it: {cause}") from err

    def _ids(self, text: str) -> list[int]:
        # verbose=False: long rows are counted here, there is no need to warn of them.
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    @property
    def _end(self) -> int:
        if (end := self._tokenizer.eos_token_id) is None:
            raise DataError(
                "The tokenizer has no end token, so the model could not learn where answers end. "
                "Set `tokenizer.eos_token`."
            )
        return int(end)


def prompt_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of a prompt, with the special tokens that the tokenizer puts before a text.

    One of two begin tokens goes where the text has its own. An empty prompt is the begin token;
    without one there are no tokens.
    """
    ids = list(tokenizer(text, verbose=False).input_ids)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if begin is not None and ids[:2] == [begin, begin]:
        ids = ids[1:]
    # Some tokenizers close every text: an answer does not follow an end.
    if len(ids) > 1 and ids[-1] == end and not text.endswith(str(tokenizer.eos_token)):
        ids = ids[:-1]
    return ids or ([] if begin is None else [begin])


def _messages(row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The conversation under a key, each message with a role and a content that is not None."""
    messages = row[key]
    if not isinstance(messages, list) or not messages:
        raise LeftOut("malformed", f"`{key}` is no list of messages, but {messages!r:.60}")
    for message in messages:
        known = message if isinstance(message, dict) else {}
        calls = known.get("role") == "assistant" and known.get("tool_calls")
        is_text = isinstance(known.get("content"), str | list) or (
            known.get("content") is None and calls
        )
        if not is_text or not isinstance(known.get("role"), str):
            raise LeftOut(
                "malformed", f"`{key}` has {message!r:.60}, not a message with role and content"
            )
    _check_unicode([messages, row.get("tools")])
    return [{**message, "content": message.get("content") or ""} for message in messages]


def _check_unicode(value: Any) -> None:
    """Refuse half of a surrogate pair, which JSON can escape and no tokenizer takes."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except (UnicodeEncodeError, RecursionError) as err:
        raise LeftOut("malformed", "it has text that is no Unicode") from err


def prompt_of(row: Mapping[str, Any]) -> str:
    """What comes before the first answer: rows with the same are on the same side."""
    if "prompts" in row:
        return json.dumps(row["prompts"])
    if "messages" not in row:
        return json.dumps(row["prompt"], default=str)
    before = []
    for message in row["messages"]:
        if message["role"] == "assistant":
            break
        before.append(message.get("content"))
    return json.dumps(before, default=str)


def _files(data: MessagesSection) -> Iterator[Path]:
    for path in map(Path, data.path or ()):
        if path.is_dir():
            found = sorted(x for x in path.rglob("*") if x.suffix.casefold() in _SUFFIXES)
            if not found:
                raise DataError(
                    f"`data.path` is {str(path)!r}, but no file in it is {', '.join(_SUFFIXES)}."
                )
            yield from found
        elif path.is_file():
            yield path
        else:
            made = "" if data.made_by is None else f" It is made by `{data.made_by}`."
            raise DataError(
                f"`data.path` is {str(path)!r}, but there is no such file or folder.{made}"
            )


def _without_nulls(value: Any) -> Any:
    """Without the keys that Arrow adds to every message because some other one has them."""
    if isinstance(value, dict):
        return {key: _without_nulls(x) for key, x in value.items() if x is not None}
    return [_without_nulls(x) for x in value] if isinstance(value, list) else value
