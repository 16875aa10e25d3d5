"""The tool `parse_file`: files of the user's folder, and nothing outside of it."""

import asyncio
import hashlib
import re
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from hanol.errors import AddressError, DocumentError, HanolError, SearchIndexError
from hanol.retrieval import Source, document_passages, parse_document
from hanol.tools._schemas import PARSE_FILE
from hanol.tools._show import failure, joined, list_argument, numbered, one_line
from hanol.tools._tool import Observation, ToolContext
from hanol.tools.web._web import Opened, Web

_FILES = 16  # of one call
_CACHED = 32  # documents
_MAX_BYTES = 200_000_000  # of one file
_MAX_UNPACKED = 200_000_000  # of one archive, all members together
_MAX_MEMBERS = 200
_DOCUMENT = re.compile(r"doc://[0-9a-f]{8}/([^#]+)(?:#p\d+)?")
_FOREIGN = re.compile(r"[A-Za-z]:|.*\0", re.DOTALL)  # another drive; a name no system takes
_MAX_RATIO = 200  # deflate reaches 1000 on zeros; text stays under 20


class ParseFile:
    """Reads files under the index's folder, and addresses where the web is on.

    Args:
        web: None keeps the web off.
        budget: Tokens that one call may give, estimated, shared by its files.
    """

    name = PARSE_FILE.name
    description = PARSE_FILE.description
    parameters = PARSE_FILE.parameters

    def __init__(self, web: Web | None = None, *, budget: int = 10_000) -> None:
        self._web = web
        self._budget = budget
        self._cache: dict[tuple[str, str], Opened] = {}

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Read `arguments["files"]`, names relative to the index's folder."""
        names = list_argument(arguments, "files", _FILES)
        if not names:
            return failure("No file. Give names relative to the folder.")
        parsed = await asyncio.gather(*(self._parse(name, context) for name in names))
        sections: list[str] = []
        sources: list[Source] = []
        for name, result in zip(names, parsed, strict=True):
            if isinstance(result, str):
                sections.append(f"{one_line(name)} could not be read: {result}")
                continue
            share = self._budget // len(names)
            text, shown, left = numbered(result.passages, context.sources, share)
            lines = [f"{one_line(name)}: {one_line(result.title)}", text, *result.notes]
            if left:
                lines.append(
                    f"(Cut: {left} of {len(result.passages)} passages are not shown. Search, or "
                    "visit the document with a goal, to see the rest.)"
                )
            sections.append("\n".join(lines))
            sources += shown
        addresses = (source.address for source in sources)
        return joined(sections, sources, addresses, failed=not sources)

    async def _parse(self, name: str, context: ToolContext) -> Opened | str:
        """The file, or why it could not be read."""
        try:
            if "://" in name and not name.startswith("doc://"):
                if self._web is None:
                    raise AddressError("the web is off; only files of the folder can be read.")
                return await self._web.open(name, context.addresses)
            if context.index is None:
                raise SearchIndexError("no folder is open.")
            return await asyncio.to_thread(self._read, name, context.index.folder)
        except HanolError as err:
            return str(err)

    def _read(self, name: str, folder: Path) -> Opened:
        path = inside(folder, name)
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise DocumentError(f"it is larger than {_MAX_BYTES // 1_000_000} MB.")
        relative = path.relative_to(folder.resolve()).as_posix()
        key = (relative, hashlib.sha256(data).hexdigest())
        if key not in self._cache:
            self._cache[key] = _parse(relative, data, key[1])
            if len(self._cache) > _CACHED:
                del self._cache[next(iter(self._cache))]  # the oldest
        return self._cache[key]


def inside(folder: Path, name: str) -> Path:
    """The file of a folder that a relative path or an address stands for.

    Raises:
        AddressError: Absolute, outside by ".." or a link, missing, or no regular file.
    """
    if address := _DOCUMENT.fullmatch(name):
        name = unquote(address[1])
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or _FOREIGN.match(name):
        raise AddressError("only names relative to the folder, without '..', are read.")
    root = folder.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise AddressError("it is a link that leads out of the folder.")
    if not path.is_file():  # neither a folder nor a device nor a pipe
        raise AddressError("there is no such file in the folder; search for its name.")
    return path


def _parse(relative: str, data: bytes, sha256: str, *, packed: bool = False) -> Opened:
    """The text of a file; of an archive, that of its files, unless it is in an archive itself."""
    if zipfile.is_zipfile(BytesIO(data)):  # docx, pptx and xlsx, too
        try:
            with zipfile.ZipFile(BytesIO(data)) as archive:
                members = _checked(archive)
                if not packed and relative.lower().endswith(".zip"):
                    return _archive(relative, archive, members, sha256)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as err:
            # NotImplementedError is zipfile's word for a compression that it does not know.
            raise DocumentError(f"the archive cannot be unpacked: {err}.") from err
    document = parse_document(PurePosixPath(relative).name, data)
    return Opened(relative, document.title, document_passages(document, relative, sha256))


def _checked(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive that may be unpacked.

    Raises:
        DocumentError: A name leads out of the archive, or it unpacks to too much.
    """
    members = archive.infolist()
    if len(members) > 10_000:
        raise DocumentError(f"the archive has {len(members)} members.")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise DocumentError(f"the archive names {member.filename!r}, outside of itself.")
    size = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if size > _MAX_UNPACKED or size > _MAX_RATIO * max(packed, 10_000):
        raise DocumentError(f"the archive unpacks to {size:,} bytes, more than is read.")
    return [member for member in members if not member.is_dir()]


def _archive(
    relative: str, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], sha256: str
) -> Opened:
    if len(members) > _MAX_MEMBERS:
        raise DocumentError(f"the archive has {len(members)} files; {_MAX_MEMBERS} are read.")
    parsed = Opened(relative, PurePosixPath(relative).name, [])
    for member in members:
        with archive.open(member) as file:
            data = file.read()  # never more than the size that was checked
        try:
            inner = _parse(f"{relative}/{member.filename}", data, sha256, packed=True)
            parsed.passages.extend(inner.passages)
        except DocumentError as err:
            parsed.notes.append(f"({one_line(member.filename)} could not be read: {err})")
    if not parsed.passages:
        raise DocumentError(f"nothing in the archive could be read. {' '.join(parsed.notes)}")
    return parsed
