"""Pictures as RGB, whatever they were: rotated by EXIF, transparent, CMYK, 16 bits, a palette."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hanol.errors import DataError, require
from hanol.files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_PIXELS = 1 << 27  # about 11,600 by 11,600; a file of a few bytes can claim any size
_MOST_ASPECT = 100  # longer side over shorter one


def read_image(source: "bytes | str | Path | Image", *, rotate: bool = True) -> "Image":
    """A picture in RGB, upright.

    Transparent parts are laid on white, 16-bit values become 8-bit ones; an animation gives its
    first frame.

    Args:
        source: A file, its bytes, or a picture of Pillow.
        rotate: Whether to turn the picture as its EXIF data says.

    Raises:
        DataError: It is no picture, is damaged, has no pixels or too many, or one side is more than
            100 times the other.
        MissingExtraError: Pillow is not installed.
    """
    pillow = require("PIL.Image", extra="vision", feature="Reading images")
    ops = require("PIL.ImageOps", extra="vision", feature="Reading images")
    what = "The image"
    if isinstance(source, str | Path):
        what = f"The image {str(source)!r}"
    picture: Any = source
    try:
        if isinstance(source, str | Path):
            with open_regular(source) as file:
                source = file.read()
        if isinstance(source, bytes):
            if not source:
                raise DataError(f"{what} is an empty file.")
            with warnings.catch_warnings():  # our own bound is below
                warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
                picture = pillow.open(BytesIO(source))
        check_size(*picture.size, what=what)
        picture.load()
        if rotate:
            picture = ops.exif_transpose(picture)
        return _rgb(picture)
    except DataError:
        raise
    except FileNotFoundError as err:
        raise DataError(f"{what} does not exist. Check the path.") from err
    except pillow.UnidentifiedImageError as err:
        raise DataError(
            f"{what} is in no format that Pillow reads. Convert it to PNG or JPEG."
        ) from err
    except pillow.DecompressionBombError as err:
        raise DataError(f"{what} has more than {_MOST_PIXELS:,} pixels. Make it smaller.") from err
    # Decoders meet damaged files with whatever exception their format has.
    except Exception as err:
        raise DataError(f"{what} cannot be read: {str(err).rstrip('.')}. It is damaged.") from err


def check_size(width: int, height: int, *, what: str = "The image") -> None:
    """Refuse sizes of which no tiles can be made."""
    if width < 1 or height < 1:
        raise DataError(f"{what} has no pixels: its size is {width} by {height}.")
    if max(width, height) > _MOST_ASPECT * min(width, height):
        raise DataError(
            f"{what} is {width} by {height} pixels: one side is more than {_MOST_ASPECT} times the "
            "other, and tiles would show a blur. Cut it into parts."
        )
    if width * height > _MOST_PIXELS:
        raise DataError(
            f"{what} is {width} by {height} pixels, more than {_MOST_PIXELS:,}. Make it smaller."
        )


def _rgb(picture: Any) -> "Image":
    """A picture of any mode in RGB."""
    from PIL import Image

    mode = picture.mode
    if mode.startswith(("I", "F")):  # `convert` would cut values above 255 off
        values = np.asarray(picture, dtype=np.float64)
        if mode == "F":
            scale = 255.0 if values.max(initial=0) <= 1 else 1.0
        else:
            scale = 255 / 65535 if mode != "I" or values.max(initial=0) > 255 else 1.0
        eight = np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)
        return Image.fromarray(eight).convert("RGB")
    if "transparency" in picture.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
