"""Real documents of Debian's packages, and what established tools find in them.

Nothing is installed: packages are downloaded and unpacked into the folder. Their licences allow to
read them, not all of them to pass them on, so none is part of this repository.
"""

import csv
import email
import email.policy
import gzip
import io
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

# Kind, files of a package at most, packages (of sources: with "src:"), patterns of file names.
KINDS = (
    ("pdf", 9, "installation-guide-amd64 debian-reference-en debian-reference-zh-cn "
     "debian-reference-zh-tw debian-reference-ja debian-reference-de debian-reference-fr "
     "debian-edu-doc-en debian-edu-doc-ja debian-edu-doc-zh-cn debian-faq-ko debian-faq-ja "
     "debian-faq-zh-cn developers-reference-ja maint-guide maint-guide-ja maint-guide-zh-cn "
     "debian-policy live-manual-pdf python-reportlab-doc ubuntu-packaging-guide-pdf-ru "
     "why3-doc-pdf siscone-doc-pdf r-doc-pdf erlang-doc linuxcnc-doc-zh-cn texlive-lang-cjk "
     "texlive-lang-korean texlive-lang-chinese texlive-lang-japanese texlive-lang-cyrillic "
     "texlive-lang-arabic", "*.pdf *.pdf.gz"),
    ("html", 12, "libreoffice-help-ko libreoffice-help-ja libreoffice-help-zh-cn "
     "libreoffice-help-zh-tw debian-faq-ko debian-faq-ja debian-faq-zh-cn aptitude-doc-ja "
     "maint-guide-ja maint-guide-zh-cn lilypond-doc-html-ja lilypond-doc-html-zh git-doc "
     "octave-doc libgtk-3-doc python-psycopg2-doc", "*.html"),
    ("docx", 26, "src:libapache-poi-java src:pandoc r-cran-officer python3-docx", "*.docx *.docm"),
    ("pptx", 20, "src:libapache-poi-java src:pandoc r-cran-officer", "*.pptx *.pptm"),
    ("xlsx", 26, "src:libapache-poi-java r-cran-openxlsx r-cran-readxl r-cran-officer",
     "*.xlsx *.xlsm"),
    ("odt", 14, "libreoffice-common src:pandoc src:calligra src:python-odf", "*.odt *.ott"),
    ("ods", 10, "libreoffice-common libreoffice-help-ko src:python-odf src:calligra",
     "*.ods *.ots"),
    ("odp", 10, "libreoffice-common src:python-odf src:calligra", "*.odp *.otp"),
    ("eml", 24, "src:notmuch src:public-inbox src:rspamd src:kmime libpython3.11-testsuite",
     "corpora/**/* *.eml codecs/*.mbox data/*.mbox test_email/data/msg_*.txt"),
)  # fmt: skip
LARGEST = 3_000_000  # bytes of a file
SECONDS = 60.0  # for a tool with one file
MAIL = re.compile(rb"\A(?:>?From |[A-Z][\w-]+:)")
TOOLS = {"pdf": ("pdftotext",), "html": ("pandoc",), "docx": ("pandoc", "libreoffice"),
         "odt": ("pandoc", "libreoffice"), "eml": ("pandoc",)}  # fmt: skip
# What the generators of web pages put beside the text, by the names that they give it.
BESIDE = " | ".join(
    ["//nav", "//footer", "//button", "//select", "//div[@class='header' and not(*[not(self::p)])]",
     "//table[@class='header' or @class='bar']", "//body/table[@width='100%']"]
    + [f"//*[@role='{r}']" for r in ("navigation", "banner", "contentinfo", "search", "dialog")]
    + [f"//*[@id='{n}']" for n in (
        "tocframe", "footer", "package-header", "qt_breadcrumbs", "leftnav", "toc_mw", "searchbar",
        "DonationFrame", "SearchFrame", "titlearea", "nav-path", "languages",
    )]
    + [f"//*[contains(concat(' ', normalize-space(@class), ' '), ' {n} ')]" for n in (
        "navheader", "navfooter", "related", "sphinxsidebar", "footer", "navigation", "nav_table",
        "spirit-nav", "navbar", "modal", "rst-footer-buttons", "headerlink", "col-md-3",
        "navpanel", "innerbreadcrumb", "naviheader", "navifooter", "mobile-topbar", "main-rounded",
        "naviNextPrevious",
    )]
)  # fmt: skip

# Neither text nor beside it: lists of the page's own parts, what a picture is called.
UNCLEAR = ("//*[contains(@class, 'toc') or contains(@class, 'contents ') or @id='toc'"
           " or @class='summary' or @class='copyright'] | //script"
           " | //style | //head | //noscript | //template | //summary | //img"
           " | //comment()")  # fmt: skip


LEFT_OUT = (
    "The tools get Office files without what nobody sees who opens them (deleted and moved text, "
    "names and descriptions of pictures), without numbers of footnotes, and without what each "
    "program makes up as it draws them: numbers of slides, today's date, numbers along the axes "
    "of charts."
)
NOT_SHOWN = {
    "docx": "//w:del | //w:moveFrom",
    "pptx": "//a:fld[@type='slidenum' or starts-with(@type, 'datetime')]",
    "odp": "//text:page-number | //text:date | //text:time | //presentation:date-time",
    "odt": "//text:tracked-changes | //text:date | //text:time",
}
NOTE_MARKS = "//w:footnoteReference | //w:endnoteReference"
NAMES = "//@descr | //wp:docPr/@title | //v:*/@alt | //v:*/@title | //o:*/@title"  # of pictures
NAMESPACES = {
    "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
    "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
    "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
    "chart": "urn:oasis:names:tc:opendocument:xmlns:chart:1.0",
    "o": "urn:schemas-microsoft-com:office:office",
    "presentation": "urn:oasis:names:tc:opendocument:xmlns:presentation:1.0",
    "style": "urn:oasis:names:tc:opendocument:xmlns:style:1.0",
    "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
    "v": "urn:schemas-microsoft-com:vml",
}


@dataclass(frozen=True)
class Real:
    """A file of a package, its kind, and where it lies."""

    kind: str
    package: str
    path: Path


def unpacked(package: str, folder: Path) -> Path | None:
    """The files of a Debian package ("src:NAME": of its sources); None if it is not to be had."""
    tree = folder / "packages" / package.replace(":", "-")
    if tree.exists():
        return tree
    part = folder / "packages" / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root"]
    source = package.startswith("src:")
    if source:
        lists = folder / "lists"
        apt += [*_sources(lists), "--download-only", "source", package[4:]]
    else:
        apt += ["download", package]
    done = subprocess.run(apt, cwd=part, capture_output=True, check=False)
    archives = sorted([*part.glob("*.deb"), *part.glob("*.orig*.tar.*[!c]")])  # no .asc
    if done.returncode or not archives:
        print(f"{package}: not to be had, left out", flush=True)
        return None
    out = part / "tree"
    out.mkdir()
    for archive in archives:
        unpack = ["tar", "xf", archive, "-C", out] if source else ["dpkg", "-x", archive, out]
        subprocess.run(unpack, check=True)
    out.rename(tree)
    shutil.rmtree(part)
    return tree


def _sources(lists: Path) -> list[str]:
    """Options of apt-get with lists of its own, because most machines have none of sources."""
    entry = lists.with_suffix(".list")  # beside them: apt-get clears the folder of its lists
    options = ["-o", f"Dir::Etc::sourcelist={entry}", "-o", "Dir::Etc::sourceparts=-",
               "-o", f"Dir::State::lists={lists}"]  # fmt: skip
    if not entry.exists():
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        key = "/usr/share/keyrings/debian-archive-keyring.gpg"
        entry.write_text(f"deb-src [signed-by={key}] http://deb.debian.org/debian bookworm main\n")
        subprocess.run(["apt-get", "-qq", *options, "update"], check=False, capture_output=True)
    return options


def files(tree: Path, patterns: str) -> list[Path]:
    """Files of a package that are no links and not too large, in a fixed order."""
    found = {path for pattern in patterns.split() for path in tree.rglob(pattern)}
    return [
        path for path in sorted(found)
        if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size < LARGEST
    ]  # fmt: skip


def spread(found: list[Path], count: int) -> list[Path]:
    """At most `count` of the files, from all places of the list."""
    return [found[i * len(found) // count] for i in range(count)] if len(found) > count else found


def real_files(folder: Path, share: float = 1.0, kinds: str | None = None) -> Iterator[Real]:
    """The files to read, copied under names of their own with the suffix of their kind."""
    for kind, each, packages, patterns in KINDS:
        if kinds and kind not in kinds.split(","):
            continue
        for package in packages.split():
            if (tree := unpacked(package, folder)) is None:
                continue
            found = files(tree, patterns)
            if kind == "html":
                found = [path for path in found if path.stat().st_size > 3000]
            if kind == "eml":
                found = [path for path in found if MAIL.match(path.read_bytes()[:80])]
            for path in spread(found, max(1, round(each * share))):
                data = path.read_bytes()
                data = gzip.decompress(data) if path.suffix == ".gz" else data
                suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
                mark = sha256(data).hexdigest()[:6]
                name = (
                    f"{package.partition(':')[2] or package}-{path.stem.partition('.')[0]}-{mark}"
                )
                copy = folder / "files" / f"{name}{'.eml' if kind == 'eml' else suffix}"
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(data)
                yield Real(kind, package, copy)


# --- what the tools find -----------------------------------------------------------


def references(found: list[Real], folder: Path) -> dict[Path, dict[str, list[str]]]:
    """Pages of text by file and tool; a tool that fails with a file is left out."""
    sheets = "csv:Text - txt - csv (StarCalc):9,34,76,1,,0,false,true,true,false,false,-1"
    text = "txt:Text (encoded):UTF8"
    office = {"docx": text, "odt": text, "xlsx": sheets, "ods": sheets, "pptx": "pdf", "odp": "pdf"}
    for kind, form in office.items():
        given = folder / "shown" / kind
        given.mkdir(parents=True, exist_ok=True)
        some = [f for f in found if f.kind == kind]
        for file in some:
            (given / file.path.name).write_bytes(shown(file, NOTE_MARKS))
        _convert([given / f.path.name for f in some], form, folder / "converted" / kind)
    with ThreadPoolExecutor(2) as pool:
        pages = pool.map(lambda file: _tools(file, folder), found)
        return {file.path: told for file, told in zip(found, pages, strict=True)}


def _tools(file: Real, folder: Path) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for tool in TOOLS.get(file.kind, ("libreoffice",)):
        try:
            if tool == "pdftotext":
                out[tool] = pdf_pages(file.path)
            elif tool == "libreoffice":
                out[tool] = _converted(file.path, folder / "converted" / file.kind)
            elif file.kind == "html":
                out[tool] = [
                    pandoc(without(file.path.read_bytes(), f"{BESIDE} | {UNCLEAR}"), "html")
                ]
            elif file.kind == "eml":
                out[tool] = ["\n".join(_mail(file.path.read_bytes()))]
            else:
                out[tool] = [re.sub(r"\[\d+\]", "", pandoc(shown(file), file.kind))]
        except (subprocess.SubprocessError, OSError, LookupError, ValueError):
            continue
    return out


def run(command: list[str | Path], data: bytes = b"", seconds: float = SECONDS) -> str:
    done = subprocess.run(command, input=data, capture_output=True, check=True, timeout=seconds)
    return done.stdout.decode(errors="replace")


def pdf_pages(path: Path) -> list[str]:
    return run(["pdftotext", "-enc", "UTF-8", path, "-"]).split("\f")[:-1]


def pandoc(data: bytes, form: str) -> str:
    return run(["pandoc", "--from", form, "--to", "plain", "--wrap=none"], data)


def without(page: bytes, xpath: str) -> bytes:
    """A web page without some elements."""
    from lxml import html

    tree = html.document_fromstring(page + b"<p>")
    for element in tree.xpath(xpath):
        if element.getparent() is not None and element.tag != "body":
            element.drop_tree()
    return html.tostring(tree, encoding="utf-8")  # type: ignore[no-any-return]


def shown(file: Real, more: str = "") -> bytes:
    """An Office file without what it does not show; as it is where it is broken."""
    from lxml import etree

    if file.kind not in NOT_SHOWN:
        return file.path.read_bytes()
    xpath = " | ".join(filter(None, (NOT_SHOWN[file.kind], more)))
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(file.path) as old, zipfile.ZipFile(out, "w") as new:
            for part in old.infolist():
                data = old.read(part)
                if part.filename.endswith(".xml"):
                    tree = etree.fromstring(data)
                    for element in tree.xpath(xpath, namespaces=NAMESPACES):
                        before, above = element.getprevious(), element.getparent()
                        if element.tail and before is not None:
                            before.tail = (before.tail or "") + element.tail
                        elif element.tail:
                            above.text = (above.text or "") + element.tail
                        above.remove(element)
                    for name in tree.xpath(NAMES, namespaces=NAMESPACES):
                        del name.getparent().attrib[name.attrname]
                    _hide_axes(tree)
                    data = etree.tostring(tree, xml_declaration=True, encoding="UTF-8")
                new.writestr(part, data)
    except (zipfile.BadZipFile, etree.XMLSyntaxError, NotImplementedError, RuntimeError):
        return file.path.read_bytes()
    return out.getvalue()


def _hide_axes(tree: Any) -> None:
    """Charts without the numbers along their axes."""
    for scale in tree.xpath("//c:valAx/c:scaling", namespaces=NAMESPACES):
        mark = scale.getnext()
        if mark is None or not mark.tag.endswith("}delete"):
            mark = scale.makeelement(f"{{{NAMESPACES['c']}}}delete")
            scale.addnext(mark)
        mark.set("val", "1")
    styles = tree.xpath(
        "//chart:axis[@chart:dimension='y']/@chart:style-name", namespaces=NAMESPACES
    )
    for style in tree.xpath("//style:style[style:chart-properties]", namespaces=NAMESPACES):
        if style.get(f"{{{NAMESPACES['style']}}}name") in styles:
            for each in style:
                each.set(f"{{{NAMESPACES['chart']}}}display-label", "false")


def _mail(data: bytes) -> Iterator[str]:
    """Subject and text of each mail, by the standard library."""
    mails = re.split(rb"(?m)^From \S+ .*\n", data) if data.startswith(b"From ") else [data]
    for part in filter(None, mails):
        mail = email.message_from_bytes(part, policy=email.policy.default)
        yield str(mail["subject"] or "")
        body = mail.get_body(("plain", "html"))
        if body is not None:
            text = str(body.get_content())
            yield pandoc(text.encode(), "html") if body.get_content_subtype() == "html" else text


def _convert(paths: list[Path], form: str, out: Path) -> None:
    """Convert files with LibreOffice: ten at a time, and one by one where that fails."""
    out.mkdir(parents=True, exist_ok=True)

    def missing(some: Iterable[Path]) -> list[Path]:
        return [p for p in some if not any(out.glob(f"{p.stem}[.-]*"))]

    def convert(some: list[Path]) -> None:
        profile = f"-env:UserInstallation=file://{out.parent.resolve()}/profile"
        command = ["soffice", profile, "--headless", "--convert-to", form, "--outdir", out, *some]
        try:
            run(command, seconds=SECONDS)
        except (subprocess.SubprocessError, OSError):
            return

    if shutil.which("soffice") is None:
        return
    left = missing(paths)
    for start in range(0, len(left), 10):
        convert(left[start : start + 10])
    for path in missing(left):
        convert([path])
        if missing([path]):
            (out / f"{path.stem}.failed").touch()


def _converted(path: Path, out: Path) -> list[str]:
    made = [p for p in sorted(out.glob(f"{path.stem}[.-]*")) if p.suffix != ".failed"]
    if not made:
        raise LookupError(path.name)
    if made[0].suffix == ".pdf":
        return pdf_pages(made[0])
    return ["\n".join(p.read_text("utf-8-sig", "replace") for p in made)]


def table_rows(file: Real, told: dict[str, list[str]]) -> list[list[str]]:
    """Rows of at least two filled cells of the tools, without the first of each table."""
    from lxml import html

    if file.kind in ("xlsx", "ods"):
        sheets = [csv.reader(page.splitlines(), delimiter="\t") for page in told["libreoffice"]]
    elif "pandoc" in told and file.kind != "eml":
        page = file.path.read_bytes()
        if file.kind != "html":
            page = run(["pandoc", "--from", file.kind, "--to", "html"], page).encode()
        tables = html.document_fromstring(page + b"<p>").xpath(
            "//table[.//tr[2] and not(.//table)]"
        )
        sheets = [
            [["".join(c.itertext()) for c in row.xpath("td|th")] for row in table.iter("tr")]
            for table in tables
        ]
    else:
        return []
    found = (
        [cell for cell in row if any(map(str.isalnum, cell))]
        for sheet in sheets for row in list(sheet)[1:]
    )  # fmt: skip
    return [row for row in found if 1 < len(row) < 20 and max(map(len, row)) < 200][:500]
