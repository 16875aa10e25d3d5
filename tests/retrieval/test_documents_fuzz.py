"""Broken documents: each is read or refused with a reason, and nothing else happens."""

import random
import re
import time

import pytest

from hanol.errors import DocumentError
from hanol.retrieval import Document, parse_document

BROKEN = 500
SECONDS = 20.0  # far above any parser's time for a few kilobytes, far below a hang


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.choice([1, 3, 30])):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def remove(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 200) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start : start + rng.randrange(1, 50)] * 200 + data[start:]


def digits(data: bytes, rng: random.Random) -> bytes:
    """Sizes, offsets and counts become others."""
    places = [i for i, byte in enumerate(data) if 0x30 <= byte < 0x3A]
    broken = bytearray(data)
    for place in rng.sample(places, min(len(places), 5)):
        broken[place] = rng.choice(b"0123456789-")
    return bytes(broken)


def swap(data: bytes, rng: random.Random) -> bytes:
    """One tag or attribute takes the place of another: still XML, often."""
    words = re.findall(rb"[a-zA-Z]+[:=][\w\"/.]+", data) or [b"x"]
    return data.replace(rng.choice(words), rng.choice(words), rng.choice([1, -1]))


def variants(samples, count: int, seed: int) -> list[tuple[str, bytes]]:
    """Broken forms of each kind in turn, also halves of two kinds under either name.

    Of Office files mostly one part is broken and the archive intact, since zip's own checks refuse
    all else.
    """
    rng = random.Random(seed)
    intact = samples.all_kinds()
    names = list(intact)
    made = []
    for i in range(count):
        name = names[i % len(names)]
        if rng.random() < 0.2:
            other = intact[rng.choice(names)]
            data = cut(intact[name], rng) + other[rng.randrange(len(other)) :]
        elif (
            name in ("a.docx", "a.pptx", "a.xlsx", "a.odt", "a.ods", "a.odp") and rng.random() < 0.8
        ):
            parts = samples.unzipped(intact[name])
            part = rng.choice([part for part in parts if part.endswith((".xml", ".rels"))])
            broken = rng.choice([cut, flip, remove, repeat, digits, swap])(parts[part], rng)
            data = samples.zipped(parts | {part: broken})
        else:
            data = rng.choice([cut, flip, remove, repeat, digits])(intact[name], rng)
        made.append((name, data))
    return made


def read(name: str, data: bytes) -> Document | None:
    """The document, or None where it is refused; fails on anything else."""
    start = time.monotonic()
    try:
        document = parse_document(name, data)
    except DocumentError:
        return None
    finally:
        assert time.monotonic() - start < SECONDS
    assert any(page.text for page in document.pages)
    for page in document.pages:
        page.text.encode()  # no lone surrogates
        assert "\0" not in page.text
    return document


def test_broken_documents_are_read_or_refused(samples) -> None:
    made = variants(samples, BROKEN, seed=0)
    read_ones = [document for name, data in made if (document := read(name, data)) is not None]
    assert len(made) == BROKEN
    assert 0 < len(read_ones) < BROKEN  # both happen, so the changes neither spare nor wreck all


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_many_more_broken_documents(samples, seed) -> None:
    for name, data in variants(samples, BROKEN, seed=seed):
        read(name, data)
