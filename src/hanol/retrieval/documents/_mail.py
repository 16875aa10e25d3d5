"""Reads e-mails and mailboxes.

The standard library's parser stops where a mail breaks the rules; what lies behind is read here.
"""

import email
import mimetypes
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.policy import Compat32
from itertools import groupby, pairwise

from hanol.errors import DocumentError
from hanol.retrieval.citations._sentences import split_sentences
from hanol.retrieval.documents._charset import decode
from hanol.retrieval.documents._markup import read_html, read_xml
from hanol.retrieval.documents._remarks import each_page, remark
from hanol.retrieval.documents._split import CJK
from hanol.retrieval.documents._structured import read_json
from hanol.retrieval.documents.tables._lines import read_csv

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
# So many in a row at once: the standard library takes time by the square of their number.
_ENCODED = re.compile(r"(?:=\?[^\s?]+\?[bq]\?[^?]*\?=(?:\s+(?==\?))?){1,500}", re.IGNORECASE)
_MAIL_STARTS = re.compile(rb"(?:^|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\d{4}[^\n]*\n")  # of a mailbox
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_HEADER = re.compile(rb"[!-9;-~]+[ \t]*:|[ \t]|>?From ")
_OF_A_MAIL = re.compile(
    rb"^(?:From|To|Subject|Date|Received|Return-Path|Message-ID|MIME-Version|Content-Type):",
    re.IGNORECASE | re.MULTILINE,
)
_BOUNDARY = re.compile(r"^--(\S[^\r\n]{0,200}?)[ \t]*\r?$", re.MULTILINE)
_HTML = ("text/html", "application/xhtml+xml", "text/x-amp-html", "text/watch-html")
_PROSE = ("text/plain", "text/enriched", "text/richtext")
_NO_TEXT = ("text/rtf", "text/richtext+rtf")
_CALENDARS = ("text/calendar", "application/ics", "text/vcard", "text/x-vcard", "text/directory")
_READERS: dict[str, Callable[[str], str]] = {
    "text/csv": read_csv, "text/tab-separated-values": read_csv, "application/json": read_json,
}  # fmt: skip
_XML = ("application/xml", "text/xml")
_TEXT = (*_READERS, *_XML, *_CALENDARS, "application/x-yaml", "application/yaml")
_REPORTS = ("delivery-status", "disposition-notification", "feedback-report")
_ENRICHED = re.compile(r"<<|<[^<>]{1,60}>")  # a command, or a sign that stands for itself
_WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+")
_ADDRESS = re.compile(r"\w+://\S+")  # HTML does not show it
_SAYS = (
    r"wrote|schrieb(?: [^\n]{1,80})?|a écrit|escribió|ha scritto|escreveu|작성|썼습니다|쓴 글|写道"
    r"|<[^<>\n]+@[^<>\n]+>"
)
_FROM = r"From|Von|De|Da|보낸 ?사람|보낸이|발신|差出人|发件人|寄件者"
_SUBJECT = r"Subject|Betreff|Objet|Asunto|Oggetto|Assunto|제목|件名|主题|主旨"
# "On ... wrote:" on up to three lines, with a year or an address; or a mail's headers.
_BEGINS = re.compile(
    r"((?:^[ \t]*[-_]{3,}[^\n]{0,60}\n\s{0,9})?"
    rf"(?:^[ \t*]*(?:{_FROM})\*?\s?[:：][^\n]*\n(?:[^\n]+\n){{0,6}}?"
    rf"[ \t*]*(?:{_SUBJECT})\*?\s?[:：][^\n]*(?:\n[ \t*]*[^\W\d][\w ]{{0,14}}\*?\s?[:：][^\n]*)*$"
    r"|^(?=[^\n]*(?:\n[^\n]*)?(?:(?:19|20)\d\d|/\d\d\b|@))"
    r"(?:(?:On|Am|Le|El|Il|Em) |[12]\d{3}\s?[-./년年])"
    rf"[^\n]{{3,200}}(?:\n(?!\n)[^\n]{{0,120}}){{0,2}}?(?:{_SAYS})\s?[:：][ \t]*$))",
    re.MULTILINE,
)
_TELLING = re.compile(rf"[\s*]*(?:{_FROM})\b|.*(?:19|20)\d\d")  # who, and when
_LABEL = 120  # characters
_LONGEST_OF_A_PART = 4_000  # characters of a header
_TOO_DEEP = re.compile(r"^((?:> ?){20})(?:> ?)+", re.MULTILINE)
_SAME = 0.8  # share of the words of a part that another has, which makes it one of two versions


class _Bounded(Compat32):
    """The standard library reads the parameters of a part in time by the square of their length."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:_LONGEST_OF_A_PART] if name.lower().startswith("content-") else value


_POLICY = _Bounded()


def read_eml(data: bytes) -> tuple[str, list[str]]:
    """Subject of an e-mail, or the first of a mailbox, and the text of each.

    The text is headers, body, attachments with text and attached mails, and names of others.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = decode(data).encode()
    data = data.lstrip(b"\xef\xbb\xbf\0\t\r\n ")
    later = _MAIL_STARTS.finditer(data, 1) if _MAIL_STARTS.match(data) else ()
    bounds = pairwise([0, *(found.start() for found in later), len(data)])
    # A mailbox quotes lines that begin like a mail.
    mails = [re.sub(rb"(?m)^>(>*From )", rb"\1", data[first:last]) for first, last in bounds]
    messages = [_parsed(mail) for mail in each_page(mails)]
    return _header(messages[0], "Subject"), [*map(_mail, each_page(messages))]


def _parsed(data: bytes) -> Message:
    return email.message_from_bytes(_from_first_header(data), policy=_POLICY)


def _from_first_header(data: bytes) -> bytes:
    """A mail without what stands before its headers and between them."""
    rest = data.lstrip()
    for _ in range(5):
        gap = _BLANK_LINE.search(rest)
        head, body = (rest[: gap.start()], rest[gap.start() :]) if gap else (rest, b"")
        if _OF_A_MAIL.search(head):
            lines = head.splitlines(keepends=True)
            ends = [i for i, line in enumerate(lines, 1) if _HEADER.match(line)]
            if lines[ends[-1] :]:  # a blank line is missing before the body
                lines, body = lines[: ends[-1]], b"\n" + b"".join(lines[ends[-1] :]) + body
            kept = [line for line in lines if _HEADER.match(line)]
            while kept[0][:1] in (b" ", b"\t"):
                del kept[0]
            if len(kept) < len(lines):
                remark("has lines before or among its headers that are none: they were left out")
            return b"".join(kept) + body
        rest = body.lstrip()
    return data


def _mail(message: Message) -> str:
    lines = [f"{name}: {text}" for name in _HEADERS if (text := _header(message, name))]
    attached: list[str] = []
    body = _part(message, lines, attached)
    return "\n\n".join(text for text in ["\n".join(lines), body, *attached] if text)


def _part(part: Message, lines: list[str], attached: list[str]) -> str:
    """Text of a part; attachments are named in `lines`, and their texts appended to `attached`."""
    kind, payload = part.get_content_type(), part.get_payload()
    main, _, sub = kind.partition("/")
    name = _decoded(part.get_filename() or "")
    if main == "multipart":
        return _parts(part, lines, attached)
    if main == "message" and sub in _REPORTS:
        reports = [part, *payload] if isinstance(payload, list) else [part]
        return "\n\n".join(map(_report, reports))
    if kind == "application/octet-stream" and name:
        kind = mimetypes.guess_type(name)[0] or kind
    if main == "message" or kind == "message/rfc822":
        lines += [f"Attachment: {name}"] if name else []
        attached.append(_mail(_attached_mail(part)))
        return ""
    is_text = (kind.startswith("text/") and kind not in _NO_TEXT) or kind in (*_TEXT, *_HTML)
    is_attached = name or part.get_content_disposition() == "attachment"
    if is_attached or not is_text:
        lines.append(f"Attachment: {name or kind}")
    if not is_text:
        if main not in ("image", "audio", "video") and not sub.endswith("signature"):
            remark("is an attachment without text of its own, not read", "save it as a file, and "
                   "index that", part=name or kind)  # fmt: skip
        return ""
    try:
        text = _content(part, kind)
    except DocumentError:  # not text, whatever its type says
        remark("is no text, although its type says so", "open the mail in a mail program",
               part=name or kind)  # fmt: skip
        return ""
    if not is_attached:
        return _with_origins(text) if kind in (*_HTML, *_PROSE) else text
    attached.append(f"{name or kind}:\n{text}")
    return ""


def _parts(part: Message, lines: list[str], attached: list[str]) -> str:
    payload = part.get_payload()
    if not isinstance(payload, list):
        remark("is not divided as its headers say: what could be read was read",
               "save the mail again from a mail program", doubtful=True)  # fmt: skip
        text = str(payload or "")
        if (found := _BOUNDARY.search(text)) and not part.get("X-Hanol-Boundary"):
            boundary = found.group(1).replace("\\", "\\\\").replace('"', '\\"')
            kind = part.get_content_type()
            head = f'X-Hanol-Boundary: found\nContent-Type: {kind}; boundary="{boundary}"\n\n'
            again = email.message_from_string(head + text, policy=_POLICY)
            return _part(again, lines, attached)
        return decode(text.encode("utf-8", "surrogateescape"))
    texts = [_part(inner, lines, attached) for inner in payload if isinstance(inner, Message)]
    if part.get_content_type() == "multipart/alternative":
        texts = _versions(texts)
    for extra in (part.preamble, part.epilogue):  # footers of mailing lists
        if extra and not re.search("MIME|multi-?part", extra, re.IGNORECASE):
            texts.append(decode(extra.encode("utf-8", "surrogateescape")).strip())
    return "\n\n".join(text for text in texts if text.strip())


def _versions(texts: Iterable[str]) -> list[str]:
    """Texts without those that say what another one says."""
    kept: list[tuple[set[str], str]] = []
    for text in list(texts)[:20]:  # a mail has two or three
        words = set(_WORD.findall(_ADDRESS.sub("", text.casefold())))
        if any(len(words & other) >= _SAME * len(words) for other, _ in kept):
            continue
        kept = [(other, old) for other, old in kept if len(words & other) < _SAME * len(other)]
        kept.append((words, text))
    return [text for _, text in kept]


def _report(message: Message) -> str:
    """The fields of a report on a mail, which are headers to the parser."""
    fields = (f"{name}: {_text(value)}" for name, value in message.raw_items())
    payload = message.get_payload()
    return "\n".join([*fields, payload if isinstance(payload, str) else ""]).strip()


def _attached_mail(part: Message) -> Message:
    payload = part.get_payload()
    inner = payload[0] if isinstance(payload, list) and payload else part
    assert isinstance(inner, Message)
    if part.get("Content-Transfer-Encoding", "").strip().lower() in ("base64", "quoted-printable"):
        packed = Message()  # against the standard, but it happens
        packed["Content-Transfer-Encoding"] = part["Content-Transfer-Encoding"]
        packed.set_payload(inner.get_payload() if inner is not part else payload)
        data = packed.get_payload(decode=True)
        return _parsed(data if isinstance(data, bytes) else b"")
    return inner


def _header(message: Message, name: str) -> str:
    found = (value for key, value in message.raw_items() if key.lower() == name.lower())
    return _text(next(found, ""))


def _text(raw: object) -> str:
    text = decode(str(raw).encode("utf-8", "surrogateescape"))  # many mails have bare UTF-8 here
    return " ".join(_decoded(text).split())


def _decoded(text: str) -> str:
    return _ENCODED.sub(_decode_words, text)


def _decode_words(found: re.Match[str]) -> str:
    with suppress(ValueError, LookupError, HeaderParseError):
        return str(make_header(decode_header(found.group())))
    return found.group()


def _content(part: Message, kind: str) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset()
    if kind in _HTML:
        return read_html(data, charset, whole=True)[1]
    if kind in _XML:
        return read_xml(data)[1]
    text = decode(data, charset)
    if kind in _READERS:
        return _READERS[kind](text)
    if kind in _PROSE[1:]:
        return _ENRICHED.sub(lambda m: "<" if m[0] == "<<" else "", text)
    if kind in _CALENDARS:
        text = re.sub(r"\r?\n[ \t]", "", text)  # folded lines
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] in "nN" else m[1], text)
    if str(part.get_param("format", "")).lower() == "flowed":
        return _flowed(text, "" if str(part.get_param("delsp", "")).lower() == "yes" else " ")
    return text


def _flowed(text: str, space: str) -> str:
    """A text without its soft line ends, which only join lines of one depth of quotation.

    Source: RFC 3676.
    """
    lines: list[str] = []
    depth, is_open = 0, False
    for line in text.splitlines():
        rest = line.lstrip(">")
        before, depth = depth, len(line) - len(rest)
        if is_open and depth == before:
            lines[-1] = lines[-1][:-1] + space + rest.removeprefix(" ")
        else:
            lines.append(line)
        is_open = line.endswith(" ") and rest.strip() != "--"
    return "\n".join(lines)


# --- older mails in a mail -----------------------------------------------------


def _with_origins(text: str, label: str = "") -> str:
    """The text of a mail, each sentence of an older one that it quotes on a line with its origin.

    A sentence is found, and cited, alone; it would be the author's of the mail. `label` is the
    origin of the text itself.
    """
    parts, said = [], ""
    for is_quoted, lines in groupby(
        _TOO_DEEP.sub(r"\1", text).splitlines(), key=lambda line: line.startswith(">")
    ):
        block = "\n".join(lines)
        if is_quoted:
            parts.append(_with_origins(re.sub(r"(?m)^> ?", "", block), said or "quoted mail"))
            continue
        own, *others = _BEGINS.split(block)
        parts.append(_labelled(own, label))
        for head, after in zip(others[::2], others[1::2], strict=True):
            telling = [line for line in head.split("\n") if _TELLING.match(line)]
            is_list = len(telling) > 1 or re.search(rf"(?m)^[\s*]*(?:{_SUBJECT})\b", head)
            said = "; ".join(map(str.strip, telling)) if is_list else " ".join(head.split())
            # a stop before a space would end a sentence
            said = re.sub(r"(?<=[.!?]) +", "", said.rstrip(":： ").replace("*", ""))[:_LABEL]
            label = said if after.strip() else label
            parts += [head.strip(), _labelled(after, label)]
    return "\n\n".join(part for part in parts if part.strip())


def _labelled(text: str, label: str) -> str:
    if not label:
        return text.strip("\n")
    sentences = (text[span.start : span.end] for span in split_sentences(text))
    return "\n".join(f"> [{label}] {' '.join(sentence.split())}" for sentence in sentences)
