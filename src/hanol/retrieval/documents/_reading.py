"""Finds the documents of a folder and reads them in two child processes, some ahead."""

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanol.errors import AddressError, HanolError
from hanol.files import is_hidden, open_inside
from hanol.retrieval.documents._archive import unpacked
from hanol.retrieval.documents._documents import KINDS, MAX_BYTES, foreign, parse_document, parsed
from hanol.retrieval.documents._reader import TOO_LARGE, ReaderProcess, no_processes, serve
from hanol.retrieval.documents._remarks import Remark

_WORKERS = 2
_LOOKED = 20  # files of a suffix that is no document's, into whose first bytes is looked
_OTHER = ("has a suffix that no reader knows", "save it as a PDF or another document, or rename it")
_AHEAD = 8  # documents read but not yet stored; bounds memory


@dataclass(frozen=True)
class FoundFile:
    """A file of the folder, why it is refused, if it is, and the hash of what was last indexed.

    `other` is true for a file that is no document by its suffix.
    """

    path: str
    size: int = 0
    mtime_ns: int = 0
    reason: str | None = None
    known: str | None = None
    other: bool = False


def walk(root: Path, *, skip: Path) -> Iterator[FoundFile]:
    """The files of a folder in a fixed order, without hidden ones."""
    refused: list[OSError] = []
    for place, folders, files in os.walk(root, onerror=refused.append):
        here = Path(place)
        folders[:] = sorted(n for n in folders if not is_hidden(n) and here / n != skip)
        for folder in (here / name for name in folders):
            if _leads_out(folder, root):
                yield FoundFile(folder.relative_to(root).as_posix(), reason=_LEADS_OUT)
        yield from (_look(root, here / name) for name in sorted(files) if not is_hidden(name))
    for err in refused:
        name = Path(err.filename).relative_to(root).as_posix()
        yield FoundFile(name, reason=_unreadable(err))


_LEADS_OUT = "is a symbolic link that leads out of the folder: copy what it leads to"
_RIGHT = "give yourself the right to read it"


def _look(root: Path, path: Path) -> FoundFile:
    name = path.relative_to(root).as_posix()
    shown = name.encode("utf-8", "backslashreplace").decode()
    if path.suffix.lower() not in KINDS:
        return FoundFile(shown, other=True)
    try:
        name.encode()
        if _leads_out(path, root):
            return FoundFile(name, reason=_LEADS_OUT)
        status = path.stat()
    except UnicodeEncodeError:
        return FoundFile(shown, reason="has a name that is not Unicode: rename it")
    except OSError as err:
        return FoundFile(name, reason=_unreadable(err))
    if not stat.S_ISREG(status.st_mode):
        return FoundFile(name, other=True)
    return FoundFile(name, status.st_size, status.st_mtime_ns)


def _leads_out(path: Path, root: Path) -> bool:
    # Not `Path.resolve`, which fails for links in a circle; reading those fails by itself.
    return os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root)


def _unreadable(err: OSError) -> str:
    advice = {errno.ELOOP: "remove the link", errno.ENAMETOOLONG: "shorten the names of its path"}
    return f"cannot be read ({err.strerror}): {advice.get(err.errno or 0, _RIGHT)}"


def remarks_on_others(root: Path, names: Iterable[str]) -> Iterator[tuple[str, Remark]]:
    """Why files that are no documents by their suffix are not read; a suffix is named once."""
    groups: dict[tuple[str, tuple[str, str]], list[str]] = {}
    by_suffix: dict[str, int] = {}
    for name in names:
        suffix = Path(name).suffix.lower()
        seen = by_suffix[suffix] = by_suffix.get(suffix, 0) + 1
        told = foreign(root / name) if seen <= _LOOKED else None
        groups.setdefault((suffix, told or _OTHER), []).append(name)
    for (suffix, told), found in groups.items():
        more = f"and {len(found) - 1:,} more *{suffix}" if len(found) > 1 else ""
        yield found[0], Remark(*told, part=more)


def read_file(root: str, path: str, known: str | None) -> dict[str, Any]:
    """Read and split a file: hash (alone if `known`), title, kind, pages, passages, remarks;
    or "error".
    """
    try:
        with open_inside(root, path) as file:
            data = file.read(MAX_BYTES + 1)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 == known:
            return {"sha256": sha256}
        document = parse_document(Path(path).name, data, passages=True)
        passages = [
            [page.number, start, end, page.text[start:end]]
            for page in document.pages
            for start, end in page.passages
        ]
    except AddressError as err:  # it was swapped since it was found
        return {"error": f"{err}."}
    except HanolError as err:
        return {"error": " ".join(str(err).split())}
    except OSError as err:
        return {"error": f"{_unreadable(err)}."}
    except MemoryError:
        return {"error": f"{TOO_LARGE}."}
    except Exception as err:  # a reader's fault must not end the run; it is named in the report
        told = f"{type(err).__name__} {' '.join(str(err).split())}"
        return {"error": f"The reader failed ({told}): report it to the makers of hanol."}
    return {
        "sha256": sha256,
        "title": document.title,
        "kind": document.kind,
        "pages": len(document.pages),
        "passages": passages,
        "remarks": [*map(vars, document.remarks)],
    }


def answer_requests() -> None:
    """Main function of a reader process."""
    serve({"read_file": read_file, "parse": parsed, "unpack": unpacked})


def _ask(reader: ReaderProcess, file: FoundFile, root: Path) -> dict[str, Any]:
    request = (str(root), file.path, file.known)
    try:
        answer = reader.ask("read_file", *request)
    except OSError:  # no processes here: read in this one
        return read_file(*request)
    if "error" in answer:
        answer["error"] = answer["error"].removesuffix(".") + "."
    return answer


def read_all(
    root: Path, files: Iterable[FoundFile], *, isolated: bool = True
) -> Iterator[tuple[FoundFile, dict[str, Any]]]:
    """Read documents in order, a few ahead, and yield each with what `read_file` returns."""
    if not isolated:
        for file in files:
            with no_processes():
                answer = read_file(str(root), file.path, file.known)
            yield file, answer
        return
    readers = [ReaderProcess() for _ in range(_WORKERS)]
    idle = deque(readers)  # one for each thread

    def read(file: FoundFile) -> tuple[FoundFile, dict[str, Any]]:
        reader = idle.pop()
        try:
            return file, _ask(reader, file, root)
        finally:
            idle.append(reader)

    pending: deque[Future[tuple[FoundFile, dict[str, Any]]]] = deque()
    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="hanol-read")
    try:
        for file in files:
            pending.append(pool.submit(read, file))
            if len(pending) >= _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Do not wait for a long document after an interrupt.
        pool.shutdown(wait=False, cancel_futures=True)
        for reader in readers:
            reader.close()
