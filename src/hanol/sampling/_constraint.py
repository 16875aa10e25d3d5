"""Answers constrained to a JSON schema, a regular expression or a grammar, token by token.

Shape suffixes: V vocabulary of the model.
Source: llguidance (https://github.com/guidance-ai/llguidance), which computes the masks.
"""

from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hanol.errors import CapabilityError, EngineError, require

ConstraintKind = Literal["json_schema", "regex", "grammar"]
# Without free white space a call takes a third fewer tokens, and a small model cannot lose itself
# in blanks.
_JSON = {"whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "}
_NAMES = {"json_schema": "JSON schema", "regex": "regular expression", "grammar": "grammar"}


class ConstraintCompiler:
    """Constraints over the tokens of one tokenizer; made once, as it takes up to a second.

    Args:
        tokenizer: A fast tokenizer of transformers.
        ends: Tokens that end an answer.

    Raises:
        EngineError: The tokenizer does not fit, or no token ends an answer.
        MissingExtraError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._library: Any = require(
            "llguidance", extra="constraints", feature="A constrained answer"
        )
        hf: Any = import_module("llguidance.hf")
        if not self.fits(tokenizer) or not ends:
            raise EngineError(
                "Constrained answers need a fast tokenizer that works on bytes, and a token that "
                f"ends an answer; {type(tokenizer).__name__} lacks one of them."
            )
        self._tokens = hf.from_tokenizer(tokenizer, eos_token=sorted(ends))
        self._ends = ends
        self._compiled: dict[tuple[str, str], Any] = {}

    @staticmethod
    def fits(tokenizer: Any) -> bool:
        """Whether the tokenizer works on bytes: with others, a text has no fixed tokens."""
        decoder = tokenizer.backend_tokenizer.decoder if tokenizer.is_fast else None
        state = b"" if decoder is None else decoder.__getstate__()
        return b"ByteLevel" in state or b"ByteFallback" in state

    def start(self, kind: ConstraintKind, text: str) -> "TokenConstraint":
        """A constraint at the beginning of an answer.

        Args:
            kind: What `text` is.
            text: A JSON schema, a pattern, or a Lark grammar with the rule `start`.

        Raises:
            CapabilityError: It cannot be understood.
        """
        if (kind, text) not in self._compiled:
            grammar = self._grammar(kind, text)
            matcher = self._library.LLMatcher(self._tokens, grammar, log_level=0)
            error = matcher.get_error()
            if error:
                raise CapabilityError(
                    f"The {_NAMES[kind]} of the request cannot be followed: {error.strip()}"
                )
            self._compiled = {(kind, text): matcher}  # that of the last requests is enough
        matcher = self._compiled[kind, text].deep_copy()
        return TokenConstraint(matcher, self._tokens.vocab_size, self._ends)

    def _grammar(self, kind: ConstraintKind, text: str) -> str:
        make = self._library.LLMatcher
        if kind == "regex":
            return str(make.grammar_from_regex(text))
        if kind == "grammar":
            return str(make.grammar_from_lark(text))
        try:
            return str(make.grammar_from_json_schema(text, defaults=_JSON))
        except ValueError as err:
            raise EngineError(f"The JSON schema of the request is not JSON: {err}") from err


class TokenConstraint:
    """Which tokens may come next in one answer."""

    def __init__(self, matcher: Any, vocabulary: int, ends: frozenset[int]) -> None:
        self._matcher, self._ends = matcher, ends
        self._numpy: Any = import_module("llguidance.numpy")
        self._mask = self._numpy.allocate_token_bitmask(1, vocabulary)

    def allowed(self, size: int) -> Tensor:
        """The mask of the next token, boolean [V].

        Raises:
            CapabilityError: Nothing may come: the constraint has no token for it.
        """
        if self.is_complete:
            return torch.isin(torch.arange(size), torch.tensor(sorted(self._ends)))
        self._numpy.fill_next_token_bitmask(self._matcher, self._mask, 0)
        if error := self._matcher.get_error():
            raise CapabilityError(
                f"The constraint of the request cannot be followed: {error.strip()}"
            )
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[:size]
        allowed_V = torch.zeros(size, dtype=torch.bool)
        allowed_V[: len(bits)] = torch.from_numpy(bits.astype(bool))
        if not bool(allowed_V.any()):
            raise CapabilityError("The constraint of the request allows no token of this model.")
        return allowed_V

    def accept(self, token: int) -> None:
        """Add a token that was allowed."""
        if token not in self._ends:
            self._matcher.consume_token(token)

    @property
    def is_complete(self) -> bool:
        """Whether the answer is all that the constraint asks for, and nothing may follow."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())

    def forced(self) -> list[int]:
        """Tokens that can only come next, in their order; accepting them is left to the caller."""
        if self._matcher.is_stopped():
            return [min(self._ends)]
        return [int(token) for token in self._matcher.compute_ff_tokens()]
