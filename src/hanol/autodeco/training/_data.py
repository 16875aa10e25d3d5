"""Training rows for the heads: read from JSON lines, turned into tokens.

The official code drops the first token of prompt and completion, which is right only where the
tokenizer puts a begin token before a prompt that has one already; here just that one goes.
Functions of the standard library are prompts too: every machine with Python has them, a parser says
whether a completion is Python, and the modules that the bundled model never saw are held out.

Source: arXiv 2510.26697, section 3.1 (the heads learn from the model's own verified answers).
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    ValidationError,
    model_validator,
)
from transformers import PreTrainedTokenizerBase

from hanol import models
from hanol.autodeco.training._loss import IGNORED
from hanol.errors import CheckpointError, DataError
from hanol.rows import read_rows as read_objects
from hanol.rows import replace_rows
from hanol.training import DataSection, documents, is_held_out
from hanol.training import prompt_ids as text_ids

_IMPORTS = 5  # lines of the module that stand above a header
_LONGEST = 600  # characters of a body, and of a prompt


@dataclass(frozen=True)
class Row:
    """A prompt, its completion, and the answer that it is checked against.

    Attributes:
        prompt: Text as the model gets it, chat markers included.
        completion: Text that follows; empty where it is still to be sampled.
        messages: A conversation instead of `prompt`, rendered by the chat template of the
            tokenizer; `completion` is the assistant's last turn.
        answer: The right result, for verifiers.
        completion_ids: The tokens of `completion` when the model sampled it itself: text can
            often be cut into tokens in another way than it was written. Used as they are.
        extra: All other keys of the line.
        line: Line that the row was read from, from 1.
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
            messages = [dict(message) for message in self.messages]
            text: str = models.render_chat(tokenizer, messages, add_generation_prompt=True)
        except CheckpointError:  # it would take as long for every row
            raise
        except Exception as err:  # whatever the template raises, TypeError and its own included
            raise DataError(f"{self.where}: the chat template refused it: {err}") from err
        return text

    @property
    def turns(self) -> "list[Row]":
        """A row for each turn of the assistant: a given conversation teaches all of them.

        A sampled or missing completion is one turn: everything before it is its prompt.
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


def _unicode(text: str) -> str:
    text.encode()  # refuses half of a surrogate pair, which JSON can escape
    return text


_Text = Annotated[str, AfterValidator(_unicode)]


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Text


class _Line(BaseModel):
    """A line of a file of rows; unknown keys are kept."""

    model_config = ConfigDict(extra="allow")

    prompt: _Text | None = None
    messages: list[_Message] | None = Field(None, min_length=1)
    completion: _Text | None = None
    answer: _Text | StrictInt | StrictFloat | None = None
    completion_ids: list[Annotated[StrictInt, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError('a row needs either "prompt" or "messages"')
        if self.messages and self.messages[-1].role == "assistant":
            if self.completion:
                raise ValueError(
                    'the last message is the assistant\'s and there is a "completion" too: which '
                    "one is to be learned?"
                )
            if len(self.messages) == 1:
                raise ValueError("there is no message before the assistant's")
        return self

    def row(self, line: int) -> Row:
        messages = [message.model_dump() for message in self.messages or ()]
        completion = self.completion or ""
        if messages and messages[-1]["role"] == "assistant":
            completion = messages.pop()["content"]
        return Row(
            prompt=self.prompt or "",
            completion=completion,
            messages=tuple(messages),
            answer=None if self.answer is None else str(self.answer),
            completion_ids=None if self.completion_ids is None else tuple(self.completion_ids),
            extra=self.model_extra or {},
            line=line,
        )


def read_rows(path: str | Path) -> list[Row]:
    """Read JSON lines: {"prompt", "completion"} or {"messages"}, each with an optional "answer".

    A row may have no completion, or end with a message of the user: it is a prompt to sample for.
    Unknown keys are kept in `Row.extra`.

    Raises:
        DataError: The file cannot be read or has no rows, or a line is not such an object; the
            message has its number.
    """
    rows = []
    for number, content in read_objects(path):
        try:
            rows.append(_Line.model_validate(content).row(number))
        except ValidationError as err:
            problem = err.errors()[0]
            # Pydantic names the members of a union too, by their validators.
            where = ".".join(str(part) for part in problem["loc"] if "[" not in str(part))
            text = problem["msg"].removeprefix("Value error, ")
            raise DataError(
                f"{str(path)!r}, line {number}: {f'`{where}`: ' if where else ''}{text}."
            ) from err
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


def _content(row: Row) -> dict[str, Any]:
    own = {
        "messages": [dict(message) for message in row.messages] or None,
        "prompt": None if row.messages else row.prompt,
        "completion": row.completion or None,
        "answer": row.answer,
        "completion_ids": None if row.completion_ids is None else list(row.completion_ids),
    }
    return {**row.extra, **{key: value for key, value in own.items() if value is not None}}


def tokenize(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase | None, max_length: int = 4096
) -> Tokenized:
    """Tokens and completion-only labels.

    Prompt and completion are cut into tokens apart, as when the model completes a prompt. The end
    token is appended unless it is there; not to `completion_ids`, which are as they were sampled.

    Args:
        rows: Rows; those with an empty (or blank) completion are left out and counted.
        tokenizer: Tokenizer of the base.
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
            completion = _ids(tokenizer, row.completion)
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
    ids = text_ids(row.prompt_text(tokenizer), tokenizer)
    if not ids:
        raise DataError(f"{row.where}: the prompt is empty and the tokenizer has no begin token.")
    return ids


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # verbose=False: long rows are counted here, there is no need to warn of them.
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def function_rows(*, held_out: bool, share: float = 0.05) -> list[Row]:
    """Functions and methods with a docstring, in an order that does not depend on the machine.

    A prompt is Python by itself: some imports of the module, the class's first line for a method,
    the function's header and its docstring. The completion is the rest of the body.

    Args:
        held_out: Take the modules that are kept for evaluation, instead of all others.
        share: Share of modules that are held out, by the same hash as in training.
    """
    rows = []
    for document in documents(DataSection(source="stdlib", held_out=share)):
        if is_held_out(document.group, share) != held_out:
            continue
        try:
            tree = ast.parse(document.text)
        except (SyntaxError, ValueError):
            continue  # the language reference
        # Not `splitlines`, which takes form feeds and other separators for ends of lines.
        lines = StringIO(document.text).readlines()
        imports = "".join(
            "".join(lines[node.lineno - 1 : node.end_lineno])
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno == node.end_lineno
        )
        above = "".join(imports.splitlines(keepends=True)[:_IMPORTS])
        above = f"{above}\n\n" if above else ""
        rows += [row for node in tree.body for row in _rows_of(node, lines, above)]
    return rows


def _rows_of(node: ast.stmt, lines: list[str], above: str) -> Iterator[Row]:
    if isinstance(node, ast.ClassDef):
        header = "".join(lines[node.lineno - 1 : node.body[0].lineno - 1]).splitlines(True)[:1]
        if header and header[0].rstrip().endswith(":"):
            for inner in node.body:
                yield from _function(inner, lines, above + header[0])
    else:
        yield from _function(node, lines, above)


def _function(node: ast.stmt, lines: list[str], above: str) -> Iterator[Row]:
    if not isinstance(node, ast.FunctionDef) or ast.get_docstring(node) is None:
        return
    docstring, rest = node.body[0], node.body[1:]
    if not rest or docstring.end_lineno is None or rest[0].lineno == docstring.end_lineno:
        return
    prompt = above + "".join(lines[node.lineno - 1 : docstring.end_lineno])
    body = "".join(lines[docstring.end_lineno : node.end_lineno])
    if len(prompt) <= _LONGEST and len(body) <= _LONGEST:
        yield Row(prompt=prompt, completion=body)
