"""Reads notebooks and JSON."""

import html
import json
import re
from collections.abc import Iterator
from typing import Any

from hanol.errors import DocumentError
from hanol.retrieval.documents._markup import read_html
from hanol.retrieval.documents._remarks import remark

_OUTPUT_CHARS = 20_000  # kept of one output of a notebook cell
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_REPR = re.compile(r"<[\w.]+[ .:].*>|[\w.]+\(.*\)|<\w+>", re.DOTALL)  # says nothing to a reader
_SVG_WORDS = re.compile(r"<(?:title|text)\b[^>]*>(.*?)</(?:title|text)>", re.DOTALL)
_RICH = ("text/markdown", "text/html", "text/latex", "application/json")


class _Key(str):
    """A key of a JSON object that the same object has twice: both are written."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else {_Key(key): value for key, value in pairs}


def _rewritten(text: str, indent: int | None) -> str:
    """JSON without escapes, its numbers as they stand there: 1.10, 1e400.

    Raises:
        ValueError, RecursionError: It is not JSON, or nested too deeply.
    """

    def number(digits: str) -> str:
        return f"\0{digits}\0"

    content = json.loads(text, parse_float=number, parse_int=number, object_pairs_hook=_pairs)
    written = json.dumps(content, ensure_ascii=False, indent=indent)
    return written.replace('"\\u0000', "").replace('\\u0000"', "")


def read_json(text: str) -> str:
    """JSON with one line per value and without escapes; other text without escapes only."""
    try:
        return _rewritten(text, 1)
    except (ValueError, RecursionError) as err:
        lines = [line for line in text.split("\n") if line.strip()]
        if sum(map(_is_json, lines)) * 2 > len(lines) > 1:
            return read_jsonl(text)
        _no_json(err)
        return _unescaped(text)


def read_jsonl(text: str) -> str:
    """JSON Lines without escapes; lines that are not JSON as plain text."""
    lines, faulty = [], False
    for number, line in enumerate(text.split("\n"), 1):
        if not (line := line.strip("\ufeff\0 \t\r")):
            continue
        try:
            lines.append(_rewritten(line, None))
        except (ValueError, RecursionError):
            if not faulty:
                remark("has lines that are not JSON, read as plain text", "mend them",
                       part=f"line {number} and others", doubtful=True)  # fmt: skip
            faulty = True
            lines.append(_unescaped(line))
    return "\n".join(lines)


def _no_json(err: Exception) -> None:
    reason = "is not JSON: read as plain text"
    remark(reason, f"mend it ({str(err)[:100]})", doubtful=True)


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line.strip("\ufeff\0 \t\r")), dict | list)
    except (ValueError, RecursionError):
        return False


def _unescaped(text: str) -> str:
    return _ESCAPES.sub(lambda found: str(json.loads(f'"{found.group()}"')), text)


def read_notebook(text: str) -> tuple[str, str]:
    """Title and text of a Jupyter notebook: prose, code and its output."""
    try:
        notebook = json.loads(text)
    except ValueError as err:
        _no_json(err)
        return "", _unescaped(text)
    if not isinstance(notebook, dict):
        raise DocumentError("is broken (no notebook, only a list): save it anew from Jupyter")
    parts, prose = [], []
    for cell in _cells(notebook):
        # Before version 4, code was called input.
        source = _joined(cell.get("source", cell.get("input")))
        if cell.get("cell_type") == "code":
            source = f"```\n{source}\n```" if source.strip() else ""
        else:
            if cell.get("cell_type") == "heading" and isinstance(level := cell.get("level"), int):
                source = f"{'#' * max(1, min(level, 6))} {source}"
            prose.append(source)
        parts += [source, *(_output(output) for output in _objects(cell.get("outputs")))]
    text = "\n\n".join(part for part in parts if part.strip())
    return heading("\n\n".join(prose)), text


def _objects(items: Any) -> Iterator[dict[str, Any]]:
    """The objects of a list that should hold nothing else."""
    for item in items if isinstance(items, list) else [] if items is None else [items]:
        if isinstance(item, dict):
            yield item
        else:
            remark("has holes where cells or outputs should be", "open it in Jupyter and save it")


def _cells(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _objects(notebook.get("cells"))
    for worksheet in _objects(notebook.get("worksheets")):  # before version 4
        yield from _objects(worksheet.get("cells"))


def _joined(text: Any) -> str:
    """A multi-line string: a string or a list of its lines."""
    lines = text if isinstance(text, list) else [text]
    return "".join(line for line in lines if isinstance(line, str))


def _output(output: dict[str, Any]) -> str:
    if output.get("output_type") in ("error", "pyerr"):
        text = f"{output.get('ename', '')}: {output.get('evalue', '')}"
    else:
        text = _shown(output)
    text = _COLOURS.sub("", text)
    if len(text) <= _OUTPUT_CHARS:
        return text
    remark(f"has outputs of more than {_OUTPUT_CHARS} characters, of which the rest is left out",
           "save them to a file of their own")  # fmt: skip
    return text[:_OUTPUT_CHARS] + "\n(output cut here)"


def _shown(output: dict[str, Any]) -> str:
    """What a reader of the notebook sees of an output: the plain text, or what it stands for."""
    data = output.get("data")
    if not isinstance(data, dict):  # before version 4, and printed text
        data = {f"text/{kind}": output.get(kind) for kind in ("html", "latex", "markdown", "svg")}
        data["text/plain"] = output.get("text")
    found = {kind: _joined(value) for kind, value in data.items()}
    if isinstance(content := data.get("application/json"), dict | list):
        found["application/json"] = json.dumps(content, ensure_ascii=False, indent=1)
    if found.get("text/html"):
        found["text/html"] = read_html(found["text/html"].encode(), "utf-8", whole=True)[1]
    plain = found.get("text/plain", "")
    if found.get("text/markdown", "").strip():
        return found["text/markdown"]
    if plain.strip() and not _REPR.fullmatch(plain.strip()):
        return plain
    others = (k for k in found if k.startswith("text/") and k not in (*_RICH, "text/svg"))
    for kind in (*_RICH, *others):
        if found.get(kind, "").strip() and kind not in ("text/plain", "text/javascript"):
            return found[kind]
    if words := "\n".join(_chart_words(data)):
        remark("has charts of which only titles and labels are read", "print their values as text")
        return words
    if any(kind.startswith(("image/", "png", "jpeg", "svg")) for kind in (*data, *output)):
        remark("shows pictures, which are not read", "say in a cell what they show")
        return "" if plain.startswith("<") else plain
    if not plain and data:
        remark("has outputs that are not read", "print them as text",
               part=", ".join(sorted(data))[:100])  # fmt: skip
    return plain


def _chart_words(data: dict[str, Any]) -> Iterator[str]:
    """Titles and labels of drawings that are stored as SVG or as JSON of a plotting library."""
    for kind, content in data.items():
        if kind in ("image/svg+xml", "text/svg"):
            for found in _SVG_WORDS.findall(_joined(content)):
                yield html.unescape(re.sub(r"<[^>]*>", "", found)).strip()
        elif kind.startswith("application/vnd.") and kind.endswith("+json"):
            yield from dict.fromkeys(_titles(content))


def _titles(content: Any) -> Iterator[str]:
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, str) and name in ("title", "text", "name", "description"):
            yield value
        elif name != "template":
            yield from _titles(value)
    for value in content if isinstance(content, list) else ():
        yield from _titles(value)


def heading(text: str) -> str:
    """Title of a Markdown or reStructuredText file: front matter or first heading, else ""."""
    if front := re.match(r"---\n(?:(?!---).*\n){0,50}?title:[ \t]*(\S.*)", text):
        return front.group(1).strip(" \"'")
    found = re.search(r"^#{1,3}[ \t]+(\S.*)$|^(\S.*)\n([=~*-])\3{2,}[ \t]*$", text, re.MULTILINE)
    return (found.group(1) or found.group(2)).strip(" #*") if found else ""
