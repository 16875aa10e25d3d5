"""Reads documents in a child process: one JSON line in, one JSON line out.

`_reading.py` starts it as a plain process, because `multiprocessing` would run the user's main
script again. A document that crashes or stalls its reader costs one such process.
"""

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from hanol.errors import HanolError
from hanol.retrieval.documents._documents import read_document, split_passages

_SURROGATE = re.compile("[\ud800-\udfff]")


def read(path: str, known: str | None) -> dict[str, Any]:
    """Read and split one file.

    Args:
        path: The file.
        known: Hash of its content when it was last indexed.

    Returns:
        `{"sha256"}` alone if the content is known; otherwise also `title`, `kind`, `pages` and
        `passages` ([page, start, end, text] each); or `{"error"}`.
    """
    try:
        with Path(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 == known:
            return {"sha256": sha256}
        document = read_document(Path(path))
        passages = []
        for page in document.pages:
            # Lone surrogates cannot be stored.
            text = _SURROGATE.sub("\ufffd", page.text)
            passages += [
                [page.number, start, end, text[start:end]] for start, end in split_passages(text)
            ]
        if not passages:
            return {"error": "It has no text."}
        return {
            "sha256": sha256,
            "title": _SURROGATE.sub("\ufffd", document.title),
            "kind": document.kind,
            "pages": len(document.pages),
            "passages": passages,
        }
    except (HanolError, OSError) as err:
        return {"error": " ".join(str(err).split())}
    except MemoryError:
        return {"error": "Reading it needs more memory than there is."}
    except Exception as err:  # a reader's fault must not end the run; it is named in the report
        return {"error": f"The reader failed: {type(err).__name__}: {' '.join(str(err).split())}"}


def main() -> None:
    """Answer requests until standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # anything a library prints must not mix with the answers
    for line in sys.stdin:
        print(json.dumps(read(*json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
