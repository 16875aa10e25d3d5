"""Zip archives of documents.

They are unpacked in the process that reads their documents, which can be ended: a directory of
millions of names takes gigabytes.
"""

import io
import zipfile
from pathlib import PurePosixPath
from typing import Any

from hanol.errors import DocumentError
from hanol.retrieval.documents._documents import Document, answered, checked, parsed
from hanol.retrieval.documents._reader import SECONDS, ask

_MAX_BYTES = 200_000_000  # of all members
_MAX_MEMBERS = 200
_MAX_RATIO = 200  # deflate reaches 1000 on zeros; text stays under 20
_OPTIONS = {"links": False, "tables": False, "passages": True, "address": None}


def parse_archive(
    name: str, data: bytes, *, seconds: float = SECONDS
) -> list[tuple[str, Document | DocumentError]]:
    """Read the documents of a zip archive, with their passages; archives in it are not read.

    Args:
        name: File name, for messages.
        data: Content of the file.
        seconds: When to give up, at most 300.

    Returns:
        Name of each member, and its document, or why it could not be read.

    Raises:
        DocumentError: It is no archive, leads out of itself, or unpacks to too much; or it could
            not be read in that time or with 1,280 MB of memory.
        MissingExtraError: A kind in it needs the extra "documents".
    """
    told = ask("unpack", unpacked, name, data=data, seconds=seconds)
    read: list[tuple[str, Document | DocumentError]] = []
    for member, found in checked(name, told)["members"]:
        try:
            read.append((member, answered(PurePosixPath(member).name, found)))
        except DocumentError as err:
            read.append((member, err))
    return read


def unpacked(name: str, data: bytes) -> dict[str, Any]:
    """The answer of a reader process to `parse_archive`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # zipfile gives no more bytes of a member than the size that was checked.
            return {
                "members": [
                    (m.filename, parsed(PurePosixPath(m.filename).name, _OPTIONS, archive.read(m)))
                    for m in _checked(archive)
                ]
            }
    except DocumentError as err:
        return {"refused": str(err)}
    except MemoryError:
        return {"refused": f"{name} needs too much memory to be unpacked."}
    except Exception as err:  # of broken archives: BadZipFile, EOFError, zlib.error, ...
        return {"refused": f"the archive cannot be unpacked: {' '.join(str(err).split())}."}


def _checked(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive, unless a name leads out of it or it unpacks to too much."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise DocumentError(f"the archive names {member.filename!r}, outside of itself.")
    size = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if size > min(_MAX_BYTES, _MAX_RATIO * max(packed, 10_000)):
        raise DocumentError(f"the archive unpacks to {size:,} bytes, more than is read.")
    if len(members) > _MAX_MEMBERS:
        raise DocumentError(f"the archive has {len(members)} files; {_MAX_MEMBERS} are read.")
    return members
