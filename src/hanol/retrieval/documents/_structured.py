"""Reads notebooks, e-mails and JSON."""

import email
import email.policy
import json
import re
from contextlib import suppress
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from typing import Any

from hanol.errors import DocumentError
from hanol.retrieval.documents._charset import decode
from hanol.retrieval.documents._markup import read_html

_OUTPUT_CHARS = 20_000  # kept of one output of a notebook cell
_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ENCODED = re.compile(r"(?:=\?[^\s?]+\?[bq]\?[^?]*\?=(?:\s+(?==\?))?)+", re.IGNORECASE)
_TEXT_ATTACHMENTS = ("application/json", "application/xml", "application/x-yaml")


def read_json(text: str, indent: int | None = 1) -> str:
    """JSON with one line per value and without escapes; other text unchanged."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=indent)
    except (ValueError, RecursionError):
        return text  # several objects, comments, nested too deeply: still worth searching


def read_jsonl(text: str) -> str:
    """JSON Lines without escapes; lines that are not JSON unchanged."""
    return "\n".join(read_json(line, indent=None) for line in text.split("\n") if line.strip())


def read_notebook(text: str) -> tuple[str, str]:
    """Title and text of a Jupyter notebook: prose, code and its output."""
    notebook = json.loads(text)
    # Before version 4, cells were in worksheets and code was called input.
    cells = notebook.get("cells") or [c for w in notebook.get("worksheets", []) for c in w["cells"]]
    parts, prose = [], []
    for cell in cells:
        source = "".join(cell.get("source", cell.get("input", "")))
        if cell.get("cell_type") == "code":
            source = f"```\n{source}\n```" if source.strip() else ""
        else:
            prose.append(source)
        parts += [source, *(_output(output) for output in cell.get("outputs", []))]
    text = "\n\n".join(part for part in parts if part.strip())
    return heading("\n\n".join(prose)), text


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", output)
    if output.get("output_type") in ("error", "pyerr"):
        text = f"{output.get('ename', '')}: {output.get('evalue', '')}"
    else:
        kinds = ("text/markdown", "text/plain", "text")
        text = next(("".join(data[kind]) for kind in kinds if kind in data), "")
    text = _COLOURS.sub("", text)
    return text if len(text) <= _OUTPUT_CHARS else text[:_OUTPUT_CHARS] + "\n(output cut here)"


def heading(text: str) -> str:
    """Title of a Markdown or reStructuredText file: front matter or first heading, else ""."""
    if front := re.match(r"---\n(?:(?!---).*\n){0,50}?title:[ \t]*(\S.*)", text):
        return front.group(1).strip(" \"'")
    found = re.search(r"^#{1,3}[ \t]+(\S.*)$|^(\S.*)\n([=~*-])\3{2,}[ \t]*$", text, re.MULTILINE)
    return (found.group(1) or found.group(2)).strip(" #*") if found else ""


def read_eml(data: bytes) -> tuple[str, str]:
    """Subject and text of an e-mail: headers, body, attachments with text, names of others."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    lines = [f"{name}: {_header(message, name)}" for name in _HEADERS if _header(message, name)]
    plain, rich, attached = [], [], []
    for part in message.walk():
        if part.is_multipart():
            continue
        name, kind = part.get_filename(), part.get_content_type()
        if name or part.get_content_disposition() == "attachment":
            lines.append(f"Attachment: {name or kind}")
            if kind.startswith("text/") or kind in _TEXT_ATTACHMENTS:
                with suppress(DocumentError):  # not text, whatever its type says
                    attached.append(f"{name or kind}:\n{_content(part)}")
        elif kind == "text/plain":
            plain.append(_content(part))
        elif kind == "text/html":
            rich.append(_content(part))
    # The HTML body repeats the plain one.
    body = plain if any(text.strip() for text in plain) else rich
    return _header(message, "Subject"), "\n\n".join(["\n".join(lines), *body, *attached])


def _header(message: Message, name: str) -> str:
    raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
    text = decode(str(raw).encode("utf-8", "surrogateescape"))  # many mails have bare UTF-8 here
    return " ".join(_ENCODED.sub(_decode_words, text).split())


def _decode_words(found: re.Match[str]) -> str:
    with suppress(ValueError, LookupError, HeaderParseError):
        return str(make_header(decode_header(found.group())))
    return found.group()


def _content(part: Message) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    if part.get_content_type() == "text/html":
        return read_html(data, part.get_content_charset())[1]
    return decode(data, part.get_content_charset())
