"""Documents and folders of strangers: each is read or refused with its reason, the rest is read."""

import gzip
import io
import os
import socket
import sqlite3
import zipfile
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.faults.lab import Lab, Outcome, kind
from tests.research.test_injection import HOSTILE
from tests.retrieval import conftest as samples
from tests.retrieval.test_documents_fuzz import variants

DOCX = "word/document.xml"


def storm(rng: Random) -> tuple[str, bytes]:
    """Name and content of a document that is made to take time, memory or code."""
    n = rng.choice([10, 1000, 30_000, 200_000])
    match rng.choice(
        [
            "tag",
            "attributes",
            "entities",
            "brackets",
            "nested",
            "csv",
            "zip",
            "office",
            "xml",
            "json",
            "mail",
            "line",
            "gzip",
            "pdf",
            "tokens",
            "link",
        ]
    ):
        case "tag":
            mark = rng.choice(["<div>", "<table>", "<b>", "<p", "<!--", "<![CDATA[", "<td><table>"])
            return "a.html", (mark * n).encode()
        case "attributes":
            return "a.html", b"<p " + b" ".join(b"a%d=1" % i for i in range(n)) + b">needle"
        case "entities":
            return "a.html", rng.choice(
                ["&amp;", "&#x41;", "&lt", "&#99999999;", "&" * 9]
            ).encode() * n
        case "brackets":
            return "a.md", rng.choice(
                ["[", "![", "[[[[1](", "> ", "**a", "`", "|", "- ", "#"]
            ).encode() * n
        case "nested":
            opening, closing = rng.choice([("<i>", "</i>"), ("<ul><li>", "</li></ul>")])
            return "a.html", f"{opening * n}needle{closing * n}".encode()
        case "csv":
            return rng.choice(["a.csv", "a.tsv"]), rng.choice(
                [b"a," * n, b'"' * n, b"a\n" * n, b'"a,\n' * n]
            )
        case "zip":
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in (DOCX, "[Content_Types].xml", "../../canary/ran", "/tmp/ran"):
                    archive.writestr(name, b"0" * (n * rng.choice([1, 200])))
            return rng.choice(["a.docx", "a.xlsx", "a.odt", "a.pptx"]), out.getvalue()
        case "office":
            parts = samples.unzipped(samples.all_kinds()["a.docx"])
            parts[DOCX] = parts[DOCX].replace(b"<w:p>", b"<w:p>" * min(n, 3000), 1)
            return "a.docx", samples.zipped(parts)
        case "xml":
            bomb = (
                b'<!DOCTYPE a [<!ENTITY b "bb">'
                + b"".join(
                    b'<!ENTITY c%d "%s">' % (i, b"&c%d;" % (i - 1) * 10 if i else b"&b;" * 10)
                    for i in range(9)
                )
                + b'<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            )
            parts = samples.unzipped(samples.all_kinds()["a.docx"])
            parts[DOCX] = bomb + parts[DOCX].partition(b"?>")[2].replace(
                b"</w:t>", b"&c8;&x;</w:t>", 1
            )
            return "a.docx", samples.zipped(parts)
        case "json":
            return "a.ipynb", rng.choice([b"[" * n, b'{"cells":' * n, b'{"cells": [5]}', b"9" * n])
        case "mail":
            mark = rng.choice(
                [
                    b"Content-Type: multipart/mixed; boundary=x\n\n--x\n",
                    b"> ",
                    b"From: a\n",
                    b"Subject: =?utf-8?b?" + b"QQ==" * 9 + b"?=\n",
                ]
            )
            head = rng.choice([b"Subject: b", b"Subject: ", b"Content-Type: text/plain", b"To: "])
            item = rng.choice([b"", b"=?utf-8?b?QQ==?= ", b";", b'; a="', b"; a*0=b", b" <a@b>,"])
            data = b"From a\n" + head + item * min(n, 60_000) + b"\n" + mark * min(n, 20_000)
            return rng.choice(["a.eml", "a.mbox"]), data
        case "line":
            return "a.txt", rng.choice(
                [b"a", b"a ", b"\xff", "한".encode(), "\ufdfa".encode(), b"\x1b[2J"]
            ) * (n * 5)
        case "gzip":
            return rng.choice(["a.html", "a.pdf", "a.txt"]), gzip.compress(b"0" * n)
        case "pdf":
            body = rng.choice(
                [b"(a) Tj " * min(n, 30_000), b"q " * n, b"BT /F1 9e9 Tf (x) Tj ET", b"[" * n]
            )
            return "a.pdf", samples.drawn_pdf(b"BT /F1 10 Tf 10 700 Td " + body + b" ET")
        case "tokens":
            return rng.choice(["a.md", "a.txt", "a.html"]), rng.choice(
                list(HOSTILE.values())
            ).encode("utf-8", "replace") * min(n, 500)
        case _:
            return "a.html", (
                f'<script>open("{n}")</script><img src="file:///etc/passwd">'
                f'<iframe src="http://127.0.0.1:9/"></iframe>'
                f'<a href="{"../" * min(n, 9000)}x">b</a>'
            ).encode()


@kind("hostile document", short=4, long=500)
def hostile_document(lab: Lab, rng: Random) -> Outcome:
    """One document, shown or indexed beside a sound one."""
    if rng.random() < 0.5:
        name, data = storm(rng)
    else:
        name, data = variants(samples, 1, rng.getrandbits(60))[0]
        name, data = rng.choice(variants(samples, 9, rng.getrandbits(60)))
    is_shown = rng.random() < 0.5

    def use(name: str, data: bytes) -> Outcome:
        folder = lab.folder() / "notes"
        folder.mkdir()
        (folder / name).write_bytes(data)
        if is_shown:
            return lab.judged(lab.run("documents", "show", folder / name, seconds=60))
        return indexed(lab, folder)

    lab.sound("showing" if is_shown else "indexing", lambda: use("a.md", b"grass\n"))
    outcome = use(name, data)
    return outcome._replace(detail=f"{name} of {len(data):,} bytes: {outcome.detail}")


def indexed(lab: Lab, folder: Path, *options: str) -> Outcome:
    """A folder is indexed, and a sound document in it is found."""
    (folder / "sound.md").write_text("needle in the hay\n")
    outcome = lab.judged(lab.run("index", folder, *options, seconds=60))
    if outcome.verdict == "survived":
        found = lab.run("search", folder, "hay", "--json")
        if '"sound.md"' not in found.out:
            return Outcome("lost", f"the sound document is not found: {found.err[-200:]}")
    return outcome


def hostile_names(folder: Path, rng: Random, lab: Lab) -> None:
    """Links, pipes, sockets, odd names and rights, and a `.hanol` of a stranger."""
    (folder / "sub").mkdir()
    names = [
        "\x1b]0;owned\x07.txt",
        "a\nb.md",
        "x" * 250 + ".md",
        "\u202etxt.md",
        " .md",
        "-rf.md",
        "한글.md",
        "a'b\".md",
        "%s%n.md",
        "CON.md",
        ";reboot.md",
    ]
    for name in rng.sample(names, 4):
        (folder / name).write_text("needle\n")
    with suppress(OSError):
        (folder / os.fsdecode(b"\xff\xfe.txt")).write_text("needle\n")
    links = {
        "loop.md": "loop.md",
        "a.md": "sub/b.md",
        "sub/b.md": "../a.md",
        "out.md": lab.secret,
        "away": lab.canary,
        "sub/up": "..",
        "dead.md": "nowhere",
        "dev.txt": "/dev/zero",
        "proc.txt": "/proc/self/environ",
    }
    for name, target in rng.sample(sorted(links.items()), 5):
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as made, suppress(OSError):
        made.bind(os.path.relpath(folder / "s.txt"))
    deep = folder / "deep"
    with suppress(OSError):
        for _ in range(rng.choice([3, 40])):
            deep = deep / ("d" * 120)
            deep.mkdir(parents=True)
    for name in (".env", ".git/config.txt", ".ssh/id.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("canary-secret of a hidden file\n")
    place = folder / ".hanol"
    match rng.choice(
        ["none", "none", "link", "pid", "database", "other", "pipe", "runs", "file", "hard link"]
    ):
        case "link":
            place.symlink_to(lab.canary)
        case "pid":
            place.mkdir()
            (place / rng.choice(["writer.pid", "writer.lock", "checked"])).symlink_to(lab.secret)
        case "database":
            place.mkdir()
            (place / "index.sqlite").symlink_to(lab.canary / "new.sqlite")
        case "other":
            place.mkdir()
            with sqlite3.connect(place / "index.sqlite") as db:
                db.execute("CREATE TABLE theirs (a)")
            db.close()
        case "pipe":
            place.mkdir()
            os.mkfifo(place / rng.choice(["index.sqlite", "writer.pid", "index.sqlite-wal"]))
        case "runs":
            place.mkdir()
            (place / "runs").symlink_to(lab.canary)
        case "file":
            place.write_text("no folder")
        case "hard link":
            place.mkdir()
            name = rng.choice(["index.sqlite", "index.sqlite-wal", "index.sum", "writer.pid"])
            (place / name).hardlink_to(lab.secret)


@kind("hostile folder", short=2, long=150)
def hostile_folder(lab: Lab, rng: Random) -> Outcome:
    """A folder with hostile names: its sound document is indexed, or all of it is refused."""
    lab.sound("indexing", lambda: indexed(lab, lab.folder()))
    folder = lab.folder() / "notes"
    folder.mkdir()
    hostile_names(folder, rng, lab)
    outcome = indexed(lab, folder, *rng.choice([[], ["--report"], ["--json"]]))
    if outcome.verdict == "survived":
        ended = lab.run("search", folder, "canary", "--json")
        if '"hits": []' not in ended.out and '"hits":[]' not in ended.out:
            return Outcome("lost", "a hidden file, or one of another folder, was indexed")
    return outcome
