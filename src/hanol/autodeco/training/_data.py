"""Training rows for the heads: read from JSON lines, turned into tokens.

Only the completion is learned from: labels of the prompt are -100. The official code drops the
first token of both texts, which is right only where the tokenizer puts a begin token before a
prompt that has one already; here just that doubled begin token goes.

Source: arXiv 2510.26697, section 3.1 (the heads learn from the model's own verified answers).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from hanol.autodeco.training._loss import IGNORED
from hanol.errors import DataError
from hanol.files import replace_rows

_ROLES = ("system", "developer", "user", "assistant", "tool")
_OWN = ("prompt", "completion", "messages", "answer", "completion_ids")


@dataclass(frozen=True)
class Row:
    """A prompt, what the model is to answer, and what an answer is checked against.

    Attributes:
        prompt: Text as the model gets it, chat markers included.
        completion: What follows; empty where it is still to be sampled.
        messages: A conversation in the place of `prompt`, rendered by the chat template of the
            tokenizer; `completion` is the assistant's last turn.
        answer: The right result, for verifiers.
        completion_ids: The tokens of `completion` when the model sampled it itself: text can
            often be cut into tokens in another way than it was written. Used as they are.
        extra: All other keys of the line.
        line: Where the row was read, from 1.
    """

    prompt: str = ""
    completion: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    answer: str | None = None
    completion_ids: tuple[int, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    line: int | None = None

    def prompt_text(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The prompt as the model gets it.

        Raises:
            DataError: The row is a conversation, and the tokenizer has no chat template or its
                template refuses it.
        """
        if not self.messages:
            return self.prompt
        if not tokenizer.chat_template:
            raise DataError(
                f"{self.where}: the row has `messages`, but the tokenizer has no chat template. "
                "Give formatted text as `prompt` instead."
            )
        try:
            text: str = tokenizer.apply_chat_template(
                [dict(message) for message in self.messages],
                tokenize=False,
                add_generation_prompt=True,
            )
        except Exception as err:  # whatever the template raises, TypeError and its own included
            raise DataError(f"{self.where}: the chat template refused it: {err}") from err
        return text

    @property
    def turns(self) -> "list[Row]":
        """A row for each turn of the assistant, as a given conversation teaches all of them.

        What was sampled, or is still to be, is one turn: what stands before it is its prompt.
        """
        if self.completion_ids is not None or not self.completion.strip():
            return [self]
        earlier = [
            replace(self, messages=self.messages[:i], completion=message["content"])
            for i, message in enumerate(self.messages)
            if i and message["role"] == "assistant"
        ]
        return [*earlier, self]

    @property
    def where(self) -> str:
        """The row's place, as the start of a message."""
        return "A row" if self.line is None else f"Line {self.line}"


@dataclass(frozen=True)
class TokenRow:
    """Tokens of a prompt and its completion.

    Attributes:
        input_ids: All tokens.
        labels: The same tokens, -100 where nothing is learned; not shifted.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]

    @property
    def num_labels(self) -> int:
        """Tokens that are predicted: the first of a row has nothing before it."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class Tokenized:
    """Rows ready for training, and what was left out.

    Attributes:
        rows: In the order of the input.
        num_empty: Rows without a completion.
        num_too_long: Rows longer than the limit.
    """

    rows: list[TokenRow]
    num_empty: int
    num_too_long: int


def read_rows(path: str | Path) -> list[Row]:
    """Read JSON lines: {"prompt", "completion"} or {"messages"}, each with an optional "answer".

    A row may have no completion, or end with a message of the user: it is a prompt to sample for.
    Keys that are not known are kept in `Row.extra`.

    Raises:
        DataError: The file cannot be read or has no rows, or a line is not such an object; the
            message has its number.
    """
    path = Path(path)
    rows = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_row(line, number, path))
    except OSError as err:
        raise DataError(f"{str(path)!r} could not be read: {err.strerror or err}.") from err
    if not rows:
        raise DataError(f"{str(path)!r} has no rows.")
    return rows


def write_rows(rows: Iterable[Row], path: str | Path) -> Path:
    """Write rows as JSON lines that `read_rows` gives back.

    Raises:
        WriteError: The file cannot be written.
    """
    replace_rows(path, map(_content, rows))
    return Path(path)


def tokenize(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase | None, max_length: int = 4096
) -> Tokenized:
    """Tokens and completion-only labels.

    Prompt and completion are cut into tokens apart, as when the model completes a prompt. The end
    token is appended unless it is there; not to `completion_ids`, which are as they were sampled.

    Args:
        rows: From `read_rows` or `rejection_sample`. Those with an empty (or blank) completion
            are left out and counted.
        tokenizer: The base's.
        max_length: Rows of more tokens are left out and counted: the end of an answer is what
            there is to learn, so they are not cut.

    Raises:
        DataError: There is no tokenizer or it has no end token, or a conversation cannot be
            rendered.
    """
    if tokenizer is None:
        raise DataError(
            "There is no tokenizer, so text cannot become tokens. Load the base's with "
            "`hanol.models.load_tokenizer`, or make `TokenRow`s of your own tokens."
        )
    end = tokenizer.eos_token_id
    if end is None:
        raise DataError(
            "The tokenizer has no end token, so the heads could not learn where answers end. "
            "Set `tokenizer.eos_token`."
        )
    found: list[TokenRow] = []
    num_empty = num_too_long = 0
    for row in rows:
        if row.completion_ids is not None:
            completion = list(row.completion_ids)
        elif row.completion.strip():
            completion = _ids(tokenizer, row.completion, special=False)
            if completion[-1] != end:
                completion.append(end)
        else:
            completion = []
        if not completion:
            num_empty += 1
            continue
        prompt = prompt_ids(row, tokenizer)
        if len(prompt) + len(completion) > max_length:
            num_too_long += 1
            continue
        found.append(TokenRow(prompt + completion, [IGNORED] * len(prompt) + completion))
    return Tokenized(found, num_empty, num_too_long)


def prompt_ids(row: Row, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of a prompt, with the special tokens that the tokenizer puts before a text.

    One of two begin tokens goes where the text has its own. An empty prompt is the begin token.

    Raises:
        DataError: The prompt is empty and there is no begin token.
    """
    text = row.prompt_text(tokenizer)
    ids = _ids(tokenizer, text, special=True)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if begin is not None and ids[:2] == [begin, begin]:
        ids = ids[1:]
    # Some tokenizers close every text: an answer does not follow an end.
    if len(ids) > 1 and ids[-1] == end and not text.endswith(str(tokenizer.eos_token)):
        ids = ids[:-1]
    if ids:
        return ids
    if begin is None:
        raise DataError(f"{row.where}: the prompt is empty and the tokenizer has no begin token.")
    return [begin]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    # verbose=False: long rows are counted here, there is no need to warn of them.
    return list(tokenizer(text, add_special_tokens=special, verbose=False).input_ids)


def _row(line: bytes, number: int, path: Path) -> Row:
    where = f"{str(path)!r}, line {number}"
    try:
        content = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as err:  # UnicodeDecodeError is a ValueError
        raise DataError(f"{where}: not JSON in UTF-8: {err}.") from err
    if not isinstance(content, dict):
        raise DataError(f"{where}: not a JSON object but {type(content).__name__}.")
    if ("prompt" in content) == ("messages" in content):
        raise DataError(
            f'{where}: a row needs either "prompt" or "messages"; it has the keys '
            f"{', '.join(sorted(content)) or 'none'}."
        )
    completion = content.get("completion")
    completion = "" if completion is None else _text(completion, "completion", where)
    messages: list[Mapping[str, str]] = []
    if "messages" in content:
        messages = _messages(content["messages"], where)
        if messages[-1]["role"] == "assistant":
            if completion:
                raise DataError(
                    f'{where}: the last message is the assistant\'s and there is a "completion" '
                    "too: which one is to be learned?"
                )
            completion = messages.pop()["content"]
        if not messages:
            raise DataError(f"{where}: there is no message before the assistant's.")
    answer = content.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    ids = content.get("completion_ids")
    if ids is not None and not (
        isinstance(ids, list) and all(type(i) is int and i >= 0 for i in ids)
    ):
        raise DataError(f'{where}: "completion_ids" is not a list of tokens.')
    return Row(
        prompt="" if messages else _text(content["prompt"], "prompt", where),
        completion=completion,
        messages=tuple(messages),
        answer=None if answer is None else _text(answer, "answer", where),
        completion_ids=None if ids is None else tuple(ids),
        extra={key: value for key, value in content.items() if key not in _OWN},
        line=number,
    )


def _messages(value: Any, where: str) -> list[Mapping[str, str]]:
    if not isinstance(value, list) or not value:
        raise DataError(f'{where}: "messages" is not a list with messages.')
    messages: list[Mapping[str, str]] = []
    for index, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise DataError(
                f'{where}: message {index} is not an object with a "role" out of '
                f"{', '.join(_ROLES)}."
            )
        content = _text(message.get("content"), f"content of message {index}", where)
        messages.append({"role": message["role"], "content": content})
    return messages


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f'{where}: "{name}" is not text but {type(value).__name__}.')
    try:
        value.encode()
    except UnicodeEncodeError as err:  # half of a surrogate pair, escaped in the JSON
        raise DataError(f'{where}: "{name}" is not valid Unicode: {err.reason}.') from err
    return value


def _content(row: Row) -> dict[str, Any]:
    content: dict[str, Any] = dict(row.extra)
    if row.messages:
        content["messages"] = [dict(message) for message in row.messages]
    else:
        content["prompt"] = row.prompt
    if row.completion:
        content["completion"] = row.completion
    if row.answer is not None:
        content["answer"] = row.answer
    if row.completion_ids is not None:
        content["completion_ids"] = list(row.completion_ids)
    return content
