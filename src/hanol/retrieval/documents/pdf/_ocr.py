"""Reads the picture of a page with tesseract, where that program is installed."""

import os
import shutil
import subprocess
from functools import lru_cache
from typing import Any

_LANGUAGES = ("kor", "eng")
_SCALE = 300 / 72  # tesseract wants 300 dots an inch
_PIXELS = 20_000_000  # of a page, so that a poster does not take gigabytes
_SECONDS = 60.0  # a page of text takes about 3


@lru_cache(maxsize=1)
def languages() -> str:
    """Languages to read, as tesseract takes them; "" if it or their data are not installed."""
    program = shutil.which("tesseract")
    if program is None:
        return ""
    listed = _run([program, "--list-langs"]).split()
    return "+".join(name for name in _LANGUAGES if name in listed)


def read_picture(page: Any) -> str:
    """Text of an open PDFium page as it looks; "" if there is none, or no OCR program."""
    if not languages():
        return ""
    width, height = page.get_size()
    scale = min(_SCALE, (_PIXELS / max(1.0, width * height)) ** 0.5)
    grey = page.render(scale=scale, grayscale=True).to_numpy()
    picture = b"P5 %d %d 255\n%b" % (grey.shape[1], grey.shape[0], grey.tobytes())
    return _run(["tesseract", "stdin", "stdout", "-l", languages()], picture)


def _run(command: list[str], picture: bytes = b"") -> str:
    try:
        done = subprocess.run(  # noqa: S603
            command, input=picture, capture_output=True, check=True, timeout=_SECONDS,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").replace("\f", "")
