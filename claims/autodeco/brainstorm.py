"""A world of sequences in which some tokens are free and the others are determined.

A sequence is a row of rounds. Each round has a brainstorm span, symbols chosen uniformly and
independently, and a compute span, the running sums of their values: every token of the first kind
is a free choice, every other token follows from those before it. Good sampling of such a text must
be diverse in the former and certain in the latter.

Tokens: 0 opens a brainstorm span, 1 opens a compute span, then the symbols, then the sums. Symbol i
has the value i modulo `modulus`. A round of three symbols, with values 4, 7 and 2, modulo 8:

    0  a4  a7  a2  1  s4  s3  s5

Shape suffixes: B sequences, T tokens, R rounds, L symbols of a span.
Source: the idea is that of arXiv 2510.26697, section 1; sizes and sums are our choice.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hanol.worlds import IGNORED

_BRAINSTORM, _COMPUTE, _FIRST_SYMBOL = 0, 1, 2


class BrainstormBatch(NamedTuple):
    """Sequences, and targets for the next token at each position."""

    input_ids: Tensor  # [B, T], int64; always right
    labels: Tensor  # [B, T], int64: the next token, or noise; `IGNORED` at the end
    free: Tensor  # [B, T], bool: the next token is a free choice


@dataclass(frozen=True)
class Brainstorm:
    """The world and its sizes.

    Args:
        rounds: Number of pairs of a brainstorm and a compute span.
        length: Symbols per brainstorm span, and sums per compute span.
        symbols: Number of symbols, a multiple of `modulus`: then sums are uniform too, and tell
            nothing about the symbols that follow.
        modulus: Number of different sums.
    """

    rounds: int = 2
    length: int = 6
    symbols: int = 48
    modulus: int = 16

    @property
    def vocab_size(self) -> int:
        """Number of tokens: two marks, the symbols and the sums."""
        return _FIRST_SYMBOL + self.symbols + self.modulus

    @property
    def num_tokens(self) -> int:
        """Tokens per sequence."""
        return self.rounds * (2 * self.length + 2)

    @property
    def free(self) -> Tensor:
        """Which tokens of a sequence are free choices, [T]."""
        free_RK = np.zeros((self.rounds, 2 * self.length + 2), dtype=bool)
        free_RK[:, 1 : 1 + self.length] = True
        return torch.from_numpy(free_RK.reshape(-1))

    def draw(self, batch: int, *, noise: float = 0.0, seed: int = 0) -> BrainstormBatch:
        """Correct sequences, and targets for training.

        Args:
            batch: Number of sequences.
            noise: Share of sums whose label is another, uniformly drawn sum. The inputs stay
                correct: a model trained on such labels is right, but less certain than it could be.
            seed: The same seed gives the same batch, and the same inputs with any noise.
        """
        rng = np.random.default_rng(seed)
        shape = (batch, self.rounds, self.length)
        symbol_BRL = rng.integers(self.symbols, size=shape)
        sum_BRL = (symbol_BRL % self.modulus).cumsum(-1) % self.modulus
        # Adding 1 to modulus - 1 gives every other sum the same chance.
        shift_BRL = rng.integers(1, self.modulus, shape) * (rng.random(shape) < noise)
        ids_BT = self._lay_out(symbol_BRL, sum_BRL)
        target_BT = self._lay_out(symbol_BRL, (sum_BRL + shift_BRL) % self.modulus)
        end_B1 = np.full((batch, 1), IGNORED)
        free_BT = self.free.roll(-1).expand(batch, -1).clone()  # the last one's next is a mark
        return BrainstormBatch(
            torch.from_numpy(ids_BT),
            torch.from_numpy(np.concatenate([target_BT[:, 1:], end_B1], axis=1)),
            free_BT,
        )

    def checks_right(self, ids_BT: Tensor) -> Tensor:
        """Whether all marks, symbols and sums of each sequence are correct.

        Args:
            ids_BT: Whole sequences of any integers, [B, T].

        Returns:
            Booleans, [B].
        """
        ids_BT_ = ids_BT.cpu().numpy()
        rounds_BRK = ids_BT_.reshape(len(ids_BT_), self.rounds, 2 * self.length + 2)
        symbol_BRL = rounds_BRK[:, :, 1 : 1 + self.length] - _FIRST_SYMBOL
        symbols_B = ((symbol_BRL >= 0) & (symbol_BRL < self.symbols)).all((1, 2))
        sum_BRL = (symbol_BRL % self.modulus).cumsum(-1) % self.modulus
        right_B = symbols_B & (self._lay_out(symbol_BRL, sum_BRL) == ids_BT_).all(-1)
        return torch.from_numpy(right_B)

    def _lay_out(
        self,
        symbol_BRL: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
        sum_BRL: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Tokens [B, T] of symbols and sums."""
        mark_BR1 = np.zeros((*symbol_BRL.shape[:2], 1), dtype=np.int64)
        parts = (
            mark_BR1 + _BRAINSTORM,
            symbol_BRL + _FIRST_SYMBOL,
            mark_BR1 + _COMPUTE,
            sum_BRL + _FIRST_SYMBOL + self.symbols,
        )
        return np.concatenate(parts, axis=-1).reshape(len(symbol_BRL), -1)
