"""Zip packages of XML parts, as Office and OpenDocument write them.

Own code, because python-docx, python-pptx and openpyxl refuse what their readers accept: Strict
Open XML, templates, missing pictures, back slashes in names. Parts are found by relationships, and
elements by their local names, which both dialects share.
"""

import io
import posixpath
import zipfile
from typing import IO, Any

from hanol.errors import DocumentError, require
from hanol.retrieval.documents._markup import ONLY_THIS_FILE
from hanol.retrieval.documents._reader import step
from hanol.retrieval.documents._remarks import remark

_OFF = ("0", "false", "off", "none")
_WIDE_ENTITY = "<!ENTITY".encode("utf-16-le")[:-1]  # and of the other byte order
_PARTS = 20_000  # files inside the package
_INFLATED = 256 * 2**20  # bytes of all parts unpacked
_XML = 64 * 2**20  # bytes of the XML parts of a document that is held as a tree
_TITLES_OF_PROGRAMS = ("PowerPoint Presentation", "PowerPoint 프레젠테이션", "Word Document")


class Package:
    """The parts of a file.

    Args:
        data: The file.
        streamed: Its large parts are read row by row, so they may be larger.

    Raises:
        DocumentError: It is a bomb, or encrypted.
    """

    def __init__(self, data: bytes, *, streamed: bool = False) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(data))
        parts = self._zip.infolist()
        # Names are the same in upper and lower case, and some programs write back slashes.
        self._parts = {_key(part.filename): part for part in parts}
        texts = [p for p in parts if p.filename.lower().endswith((".xml", ".rels", ".vml"))]
        # zipfile gives no more bytes of a part than its entry says.
        total, xml = (sum(part.file_size for part in some) for some in (parts, texts))
        if len(parts) > _PARTS or total > _INFLATED or (xml > _XML and not streamed):
            raise DocumentError(
                f"unpacks to more than {_INFLATED >> 20} MB (or {_XML >> 20} MB of text markup): "
                "take the pictures out or split it"
            )
        if any(part.flag_bits & 1 for part in parts):
            raise DocumentError("is encrypted: save a copy without the password")
        self._relations: dict[str, list[tuple[str, str, str]]] = {}  # id, kind, target by part
        self._sound: set[str] = set()
        self.main = next(iter(self.related("", "officeDocument")), "")

    def open(self, name: str) -> IO[bytes]:
        """The XML of a part, unpacked while it is read."""
        if _key(name) not in self._parts:
            return io.BytesIO(b"<missing/>")
        part, tail = self._parts[_key(name)], b""
        if part.filename not in self._sound:
            with self._zip.open(part) as stream:
                while block := stream.read(2**20):
                    if b"<!ENTITY" in (seen := tail + block) or _WIDE_ENTITY in seen:
                        raise DocumentError(
                            "declares XML entities, which Office never writes: save it again"
                        )
                    tail = block[-16:]
            self._sound.add(part.filename)
        return self._zip.open(part)

    def read(self, name: str) -> bytes:
        """The content of a part; nothing if there is no such part."""
        return self._zip.read(self._parts[_key(name)]) if _key(name) in self._parts else b""

    def tree(self, name: str, *, bare: bool = True) -> Any:
        """Root of a part, empty if there is none; without namespaces, which takes half the time."""
        etree = require("lxml.etree", extra="documents", feature="Reading Office files")
        if _key(name) not in self._parts:
            return etree.Element("missing")
        parser = etree.XMLParser(**ONLY_THIS_FILE, recover=True)
        with self.open(name) as stream, step():
            root = etree.parse(stream, parser).getroot()
        if root is None:
            return etree.Element("missing")
        # Prefixes that are not declared hide nothing: only their local names are looked at.
        undeclared = etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE
        faults = [error for error in parser.error_log if error.type != undeclared]
        if any("depth" in error.message for error in faults):
            raise DocumentError("is nested too deeply to be read: make it again")
        if faults:
            broken(name)
        return local(root) if bare else root

    def related(self, name: str, kind: str = "") -> dict[str, str]:
        """Parts that a part refers to, of a kind or of any: name by name, and name by id."""
        if name not in self._relations:
            folder, base = posixpath.split(name)
            self._relations[name] = [
                (
                    e.get("Id", ""),
                    e.get("Type", "").rpartition("/")[2].lower(),
                    posixpath.normpath(
                        posixpath.join("/", folder, e.get("Target", "").replace("\\", "/"))
                    ),
                )
                for e in self.tree(f"{folder}/_rels/{base}.rels").iter("Relationship")
                if e.get("TargetMode") != "External"
            ]
        known = self._relations[name]
        return {to if kind else key: to for key, of, to in known if kind.lower() in ("", of)}

    @property
    def title(self) -> str:
        """Title of the document in its properties."""
        for name in ("docProps/core.xml", "meta.xml", *self.related("", "core-properties")):
            title = (self.tree(name).findtext(".//title") or "").strip()
            if title and title not in _TITLES_OF_PROGRAMS:
                return title
        return ""


def _key(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()


def local(root: Any) -> Any:
    """An element whose tags, also those inside, are local names from now on."""
    for element in root.iter("*"):
        element.tag = element.tag.rpartition("}")[2].rpartition(":")[2]
    return root


def attribute(element: Any, name: str, default: str = "") -> str:
    """Value of an attribute by its local name."""
    value = element.get(name)
    if value is None:
        value = next((v for k, v in element.items() if k.rpartition("}")[2] == name), default)
    return str(value)


def relation(element: Any) -> str:
    """Id of the part that an element shows; of the parts of a diagram, that of its text."""
    ids = {
        key.rpartition("}")[2]: value
        for key, value in element.items()
        if "elationships}" in key or key.endswith("}relid")
    }
    return str(ids.get("dm", next(iter(ids.values()), "")))


def value(element: Any, path: str, default: str = "") -> str:
    """What a property inside an element is set to."""
    found = element.find(path)
    return default if found is None else attribute(found, "val")


def is_on(element: Any, path: str, default: str = "0") -> bool:
    """Whether a property inside an element, or an attribute of it ("@hidden"), is set."""
    if path[0] == "@":
        return attribute(element, path[1:], default) not in _OFF
    found = element.find(path)
    return found is not None and is_on(found, "@val", "1")


def broken(part: str) -> None:
    """Note that not all of a part could be read."""
    what_to_do = "open it in its program and save it again"
    remark("is broken: what could be read was read", what_to_do, part=part, doubtful=True)
