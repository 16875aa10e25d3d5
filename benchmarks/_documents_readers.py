"""Readers that `documents.py` compares; each file is read in a process of its own.

python benchmarks/_documents_readers.py READER FILE WARM_UP
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path


def with_hanol(path: Path) -> list[str]:
    from hanol.errors import DocumentError
    from hanol.retrieval import read_document
    from hanol.retrieval.documents import _native

    _native.let_end()  # as in the processes of `hanol index`: no further one for the file
    try:
        return [page.text for page in read_document(path).pages]
    except DocumentError:
        return []


def with_pypdf(path: Path) -> list[str]:
    import pypdf

    return [page.extract_text() for page in pypdf.PdfReader(path, strict=False).pages]


def with_pypdfium2(path: Path) -> list[str]:
    import pypdfium2

    with pypdfium2.PdfDocument(path) as document:
        return [page.get_textpage().get_text_bounded() for page in document]


READERS: dict[str, Callable[[Path], list[str]]] = {
    "hanol": with_hanol,
    "pypdfium2": with_pypdfium2,
    "pypdf": with_pypdf,
}


def answer(reader: str, path: Path, warm_up: Path) -> None:
    """Read a file and print what that took."""
    READERS[reader](warm_up)
    begin = time.process_time()
    pages = READERS[reader](path)
    seconds = time.process_time() - begin
    # not `getrusage`, which counts the process that this one was forked from
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    megabytes = int(peak[1]) / 1024 if peak else 0.0
    print(json.dumps({"pages": pages, "seconds": seconds, "megabytes": megabytes}))


if __name__ == "__main__":
    answer(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
