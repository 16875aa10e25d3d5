"""Fewer, wider visual tokens: each square of four becomes one.

Shape suffixes: B tiles, N tokens of a tile (side times side), C channels.
"""

import math

from torch import Tensor

from hanol.errors import ConfigError, ShapeError


def pixel_shuffle(x_BNC: Tensor, *, version: int = 2) -> Tensor:
    """Join each 2 by 2 square of visual tokens into one of four times the channels.

    Version 2 keeps the order of rows and columns, token (r, c) holding (2r, 2c), (2r, 2c+1),
    (2r+1, 2c) and (2r+1, 2c+1); version 1, of early InternVL checkpoints, leaves rows and columns
    of the result swapped.

    Args:
        x_BNC: Tokens of square tiles, row by row.
        version: 1 or 2.

    Returns:
        `[B, N / 4, 4 C]`.

    Raises:
        ShapeError: N is not the square of an even number.
        ConfigError: `version` is another number.
    """
    if version not in (1, 2):
        raise ConfigError(f"`version` is {version!r}, but must be 1 or 2.")
    B, N, C = x_BNC.shape
    half, odd = divmod(math.isqrt(N), 2)
    if odd or (2 * half) ** 2 != N:
        raise ShapeError(
            f"`x_BNC` has {N} tokens a tile, but needs the square of an even number, such as 1024. "
            "A class token must be dropped before."
        )
    squares = x_BNC.reshape(B, half, 2, half, 2, C).transpose(2, 3)  # rows, columns, 2, 2, C
    if version == 1:
        squares = squares.transpose(1, 2)
    return squares.reshape(B, N // 4, 4 * C)
