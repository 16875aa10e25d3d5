"""Reads the picture of a page with tesseract, where that program is installed."""

import csv
import os
import shutil
import subprocess
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

from hanol.retrieval.documents._reader import step

SECONDS = 150.0  # for all pages of a document
_FIRST = ("kor", "eng")
_LANGUAGES = 4  # if more are installed, the first ones only: each takes a third more time
_SCALE = 300 / 72  # tesseract wants 300 dots an inch
_PIXELS = 20_000_000  # of a page, so that a poster does not take gigabytes
_IMAGE = 200_000_000  # pixels of one in it: PDFium unpacks it whole, one byte to three a pixel
_IMAGES = 3  # PDFium's number of that kind of object
_PAGE_SECONDS = 60.0  # a page of text takes about 3
# Mean confidence of the words of a line, of 100. Lines in a language that tesseract knows had 74
# and more, pages in another script or upside down 31 to 55 (`dev/LOG.md`).
_TOLD = 60.0
_DIRT = 3  # characters of a line that may be a stain
_TABS = 11  # in the rows of tesseract's table


class PictureText(NamedTuple):
    """Text of a picture, and whether lines that could not be told were left out."""

    text: str
    cut: bool


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    program = shutil.which("tesseract")
    # under a heading
    return () if program is None else tuple(_run([program, "--list-langs"]).splitlines()[1:])


def languages() -> str:
    """Languages to read, as tesseract takes them; "" if it or their data are not installed."""
    listed = [name for name in _installed() if name not in ("osd", "equ") and "/" not in name]
    first = [name for name in _FIRST if name in listed]
    others = [name for name in listed if name not in first]
    return "+".join([*first, *others] if len(listed) <= _LANGUAGES else first)


def finds_up() -> bool:
    """Whether tesseract can tell which way is up."""
    return "osd" in _installed()


def read_picture(page: Any) -> PictureText:
    """Text of an open PDFium page as it looks, turned upright; needs `languages`."""
    import pypdfium2

    width, height = page.get_size()
    scale = min(_SCALE, (_PIXELS / max(1.0, width * height)) ** 0.5)
    try:
        with step():
            if any(prod(image.get_px_size()) > _IMAGE for image in page.get_objects([_IMAGES])):
                return PictureText("", True)
            grey = page.render(scale=scale, grayscale=True).to_numpy()
    except pypdfium2.PdfiumError:  # too little memory, or no size
        return PictureText("", True)
    picture = b"P5 %d %d 255\n%b" % (grey.shape[1], grey.shape[0], grey.tobytes())
    lines = _lines(languages(), picture, round(scale * 72))
    # Together with another language, some words of Korean come out in its letters.
    if "+" in languages() and any(
        "가" <= char <= "힣" for _, text in lines.values() for char in text
    ):
        alone = _lines("kor", picture, round(scale * 72))
        lines = {
            key: max(line, alone.get(key, line), key=_likelihood) for key, line in lines.items()
        }
    blocks: dict[tuple[str, ...], list[str]] = {}
    for key, (sure, text) in lines.items():
        if sure >= _TOLD:
            blocks.setdefault(key[:2], []).append(text)
    unsure = (text for sure, text in lines.values() if sure < _TOLD)
    return PictureText(
        "\n\n".join("\n".join(lines) for lines in blocks.values()),
        any(len(text) > _DIRT for text in unsure),
    )


def _likelihood(line: tuple[float, str]) -> tuple[int, float]:
    """What makes one of two readings of a line the better one."""
    sure, text = line
    # Parts of Hangul that stand alone are what Korean makes of other letters.
    return -sum("ㄱ" <= char <= "ㅣ" for char in text), sure


def _lines(languages: str, picture: bytes, dpi: int) -> dict[tuple[str, ...], tuple[float, str]]:
    """How sure tesseract is of each line, of 100, and its text, by number and left edge."""
    layout = "1" if finds_up() else "3"
    # Without its resolution tesseract guesses one, and may lose columns and tables.
    command = ["tesseract", "stdin", "stdout", "-l", languages, "--psm", layout, "--dpi", str(dpi)]
    both = ["-c", "tessedit_create_tsv=1", "-c", "tessedit_create_txt=1"]
    table: list[str] = []
    plain: list[str] = []
    for line in _run([*command, *both], picture).splitlines():
        if line.count("\t") == _TABS:
            table.append(line)
        elif words := " ".join(line.split()):
            plain.append(words)
    key: tuple[str, ...] = ()
    found: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["level"] == "4":  # a line, before its words
            key = tuple(row[name] for name in ("block_num", "par_num", "line_num", "left"))
        elif row["level"] == "5" and (row["text"] or "").strip():
            found.setdefault(key, []).append((row["text"], float(row["conf"])))
    # The table parts words of Korean, the plain text does not.
    if len(plain) != len(found):
        plain = [" ".join(word for word, _ in line) for line in found.values()]
    return {
        key: (sum(len(word) * sure for word, sure in line) / sum(len(w) for w, _ in line), text)
        for (key, line), text in zip(found.items(), plain, strict=True)
    }


def _run(command: list[str], picture: bytes = b"") -> str:
    try:
        done = subprocess.run(  # noqa: S603
            command, input=picture, capture_output=True, check=True, timeout=_PAGE_SECONDS,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")
