"""The tool `parse_file`: files of the user's folder, and nothing outside of it."""

import asyncio
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from hanol.errors import AddressError, DocumentError, HanolError, SearchIndexError
from hanol.retrieval import Document, Index, document_passages, parse_archive, parse_document
from hanol.runs import in_thread
from hanol.tools._show import failure, joined, list_argument, numbered, one_line
from hanol.tools._tool import PARSE_FILE, Observation, SpecifiedTool, ToolContext
from hanol.tools.web._web import Opened, Web

_FILES = 16  # of one call
_MAX_BYTES = 200_000_000  # of one file
_DOCUMENT = re.compile(r"doc://[0-9a-f]{8}/([^#]+)(?:#p\d+)?")
_FOREIGN = re.compile(r"[A-Za-z]:|.*\0", re.DOTALL)  # another drive; a name no system takes


class ParseFile(SpecifiedTool, spec=PARSE_FILE):
    """Reads files under the index's folder, and addresses where the web is on."""

    def __init__(self, web: Web | None = None, *, budget: int = 10_000) -> None:
        self._web = web
        self._budget = budget

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Read `arguments["files"]`, names relative to the index's folder."""
        names = list_argument(arguments, "files", _FILES)
        if not names:
            return failure("No file. Give names relative to the folder.")
        parsed = await asyncio.gather(*(self._parse(name, context) for name in names))
        parts: list[Observation] = []
        for name, result in zip(names, parsed, strict=True):
            if isinstance(result, str):
                parts.append(failure(f"{one_line(name)} could not be read: {result}"))
                continue
            share = self._budget // len(names)
            text, shown, left = numbered(result.passages, context.sources, share)
            lines = [f"{one_line(name)}: {one_line(result.title)}", text, *result.notes]
            if left:
                lines.append(
                    f"(Cut: {left} of {len(result.passages)} passages are not shown. Search, or "
                    "visit the document with a goal, to see the rest.)"
                )
            addresses = tuple(source.address for source in shown)
            parts.append(Observation("\n".join(lines), tuple(shown), addresses))
        return joined(parts)

    async def _parse(self, name: str, context: ToolContext) -> Opened | str:
        """The file, or why it could not be read."""
        try:
            if "://" in name and not name.startswith("doc://"):
                if self._web is None:
                    raise AddressError("the web is off; only files of the folder can be read.")
                return await self._web.open(name, context)
            if context.index is None:
                raise SearchIndexError("no folder is open.")
            return await in_thread(self._read, name, context.index, context)
        except HanolError as err:
            return str(err)
        except (FileNotFoundError, ValueError):  # such as half a surrogate pair
            return "there is no such file in the folder; search for its name."
        except OSError as err:  # names too long for the system, links in a circle
            return f"{err.strerror}."

    def _read(self, name: str, index: Index, context: ToolContext) -> Opened:
        with index.open_file(relative_name(name)) as file:
            path = Path(file.name)
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise DocumentError(f"it is larger than {_MAX_BYTES // 1_000_000} MB.")
        relative = path.relative_to(index.folder).as_posix()
        sha256 = hashlib.sha256(data).hexdigest()
        if path.suffix.lower() == ".zip":
            return _archive(relative, data, sha256, context)
        seconds = context.seconds_left()
        document = parse_document(path.name, data, passages=True, seconds=seconds)
        return Opened(relative, document.title, document_passages(document, relative, sha256))


def relative_name(name: str) -> str:
    """The path below the folder that a name or an address gives."""
    if address := _DOCUMENT.fullmatch(name):
        name = unquote(address[1])
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or _FOREIGN.match(name):
        raise AddressError("only names relative to the folder, without '..', are read.")
    return str(relative)


def _archive(relative: str, data: bytes, sha256: str, context: ToolContext) -> Opened:
    """The text of the files of a zip archive; archives in it are not read."""
    opened = Opened(relative, PurePosixPath(relative).name, [])
    for name, found in parse_archive(opened.title, data, seconds=context.seconds_left()):
        if isinstance(found, Document):
            opened.passages += document_passages(found, f"{relative}/{name}", sha256)
        else:
            opened.notes.append(f"({one_line(name)} could not be read: {found})")
    if not opened.passages:
        raise DocumentError(f"nothing in the archive could be read. {' '.join(opened.notes)}")
    return opened
