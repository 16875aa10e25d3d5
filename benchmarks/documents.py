"""Readers of documents side by side: words kept, their order, seconds, memory.

    python benchmarks/documents.py [--quick] [--json] [--record] [--folder build/documents]

The PDF files are those of Debian's packages, fetched with `apt-get download` and never installed;
the reference is poppler's `pdftotext` (`apt-get install poppler-utils poppler-data`). A word counts
as kept if it is on the same page as often as there; Han, kana and Hangul count by character.
"""

import argparse
import gzip
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from statistics import median

from _bench import ROOT, Report, Table, arguments, finish, progress
from _documents_readers import READERS

SECTIONS = ("pdf",)
PACKAGES = (
    "installation-guide-amd64", "debian-reference-en", "debian-reference-zh-cn",
    "debian-reference-zh-tw", "debian-reference-ja", "debian-reference-de", "debian-reference-fr",
    "python-reportlab-doc", "live-manual-pdf", "ubuntu-packaging-guide-pdf-ru", "why3-doc-pdf",
    "siscone-doc-pdf", "r-doc-pdf", "texlive-lang-cjk", "texlive-lang-korean",
    "texlive-lang-chinese", "texlive-lang-japanese", "texlive-lang-cyrillic",
)  # fmt: skip
LARGEST = 3_000_000  # bytes of a file
EACH = 12  # files of a package
LIMIT = 120.0  # seconds for one reader with one file
CJK = "\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff\uf900-\ufaff"
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
BROKEN = re.compile(r"(?<=\w)[-\u2010\ufffe\x02][^\S\n]*\r?\n\s*|\u00ad\n?|(?<=\w)[\ufffe\x02]")


LICENCES = {"hanol": "Apache-2.0", "pypdfium2": "Apache-2.0, BSD-3-Clause", "pypdf": "BSD-3-Clause"}


# --- files ----------------------------------------------------------------------


def real_files(folder: Path) -> Iterator[Path]:
    """PDF files of the packages, unpacked into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        tree = folder / "packages" / package
        if not tree.exists():
            command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
            subprocess.run(command, cwd=folder, check=True)
            archive = max(folder.glob(f"{package}_*.deb"))
            subprocess.run(["dpkg", "-x", archive, tree], check=True)
            archive.unlink()
        found = [
            path for path in sorted(tree.rglob("*.pdf*")) if path.suffix in (".pdf", ".gz")
            and path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST
        ]  # fmt: skip
        step = max(1, len(found) // EACH)
        for i, path in enumerate(found[::step][:EACH]):
            copy = folder / f"{package}-{i}.pdf"
            if not copy.exists():
                data = path.read_bytes()
                copy.write_bytes(gzip.decompress(data) if path.suffix == ".gz" else data)
            yield copy


def made_file(path: Path) -> Path:
    """A PDF of two pages, as small as it can be."""
    import pypdfium2

    raw = pypdfium2.raw
    document = pypdfium2.PdfDocument.new()
    for i in range(2):
        page = document.new_page(600, 800)
        words = raw.FPDFPageObj_NewTextObj(document, b"Helvetica", 12.0)
        text = f"Page {i + 1} speaks of tides.".encode("utf-16-le") + b"\0\0"
        raw.FPDFText_SetText(words, raw.ctypes.cast(text, raw.FPDF_WIDESTRING))
        raw.FPDFPageObj_Transform(words, 1, 0, 0, 1, 72, 700)
        raw.FPDFPage_InsertObject(page, words)
        page.gen_content()
    path.parent.mkdir(parents=True, exist_ok=True)
    document.save(path)
    return path


# --- scores ---------------------------------------------------------------------


def words(page: str) -> list[str]:
    text = unicodedata.normalize("NFKC", BROKEN.sub("", page))
    return WORD.findall(text.casefold())


def reference(path: Path) -> list[str]:
    command = ["pdftotext", "-enc", "UTF-8", path, "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.decode(errors="replace").split("\f")[:-1]


def lost(theirs: list[str], ours: list[str]) -> tuple[int, int, int]:
    """Of how many words how many are not on their page, and how many are but not in sequence.

    A word that the other reader cuts in two or joins with its neighbour is none that is lost: what
    is left over on both sides is compared without spaces.
    """
    total = missing = apart = 0
    for i, page in enumerate(theirs):
        wanted, found = words(page), words(ours[i] if i < len(ours) else "")
        left = Counter(wanted) - Counter(found)
        joined = "".join(found)
        missing += sum(n for word, n in left.items() if joined.count(word) < n)
        total += len(wanted)
        kept = [word for word in wanted if word not in left]
        pairs = Counter(pairwise(kept)) - Counter(pairwise([w for w in found if w not in left]))
        apart += pairs.total()
    return total, missing, apart


def installed_megabytes(package: str) -> float:
    files = distribution(package).files or []
    return sum(path.stat().st_size for f in files if (path := Path(f.locate())).exists()) / 1e6


def pdf(report: Report, options: argparse.Namespace) -> None:
    folder = options.folder
    made_file(folder / "warm-up.pdf")
    script = ROOT / "benchmarks" / "_documents_readers.py"
    if not options.quick and not shutil.which("pdftotext"):
        raise SystemExit("pdftotext is the reference: apt-get install poppler-utils poppler-data")
    files = [folder / "warm-up.pdf"] if options.quick else list(real_files(folder))
    results: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
    with progress() as bar:
        task = bar.add_task("PDF", total=len(files) * len(READERS))
        for path in files:
            if options.quick:
                theirs = [f"Page {i} speaks of tides." for i in (1, 2)]
            else:
                theirs = reference(path)
            for reader in READERS:
                command = [sys.executable, script, reader, path, folder / "warm-up.pdf"]
                bar.advance(task)
                try:
                    done = subprocess.run(
                        command, capture_output=True, text=True, check=True, timeout=LIMIT
                    )
                    found = json.loads(done.stdout)
                except (subprocess.SubprocessError, json.JSONDecodeError):
                    found = {"pages": [], "seconds": LIMIT, "megabytes": 0.0}
                total, missing, apart = lost(theirs, found["pages"])
                results[reader].append(
                    {"words": total, "lost": missing, "apart": apart, "pages": len(theirs),
                     "seconds": found["seconds"], "megabytes": found["megabytes"]}
                )  # fmt: skip
    rows = []
    for reader, found in results.items():
        total = sum(row["words"] for row in found)
        pages = sum(row["pages"] for row in found)
        seconds = sum(row["seconds"] for row in found)
        share = sum(row["lost"] for row in found) / total
        per_100 = [100 * row["seconds"] / row["pages"] for row in found if row["pages"]]
        report.figures |= {
            f"pdf, {reader}: words lost": share,
            f"pdf, {reader}: seconds": seconds,
            f"pdf, {reader}: slowest file, seconds": max(row["seconds"] for row in found),
        }
        package = "pypdfium2" if reader == "hanol" else reader
        rows.append(
            [
                reader,
                f"{100 * share:.2f} %",
                f"{100 * sum(row['apart'] for row in found) / total:.1f} %",
                f"{seconds:.1f}",
                f"{median(per_100):.2f}",
                f"{max(row['seconds'] for row in found):.1f}",
                f"{max(row['megabytes'] for row in found):.0f}",
                f"{installed_megabytes(package):.0f}",
                LICENCES[reader],
            ]
        )
    report.figures["pdf: files"], report.figures["pdf: pages"] = len(files), pages
    report.tables.append(
        Table(
            f"{len(files)} PDF files, {pages:,} pages, {total:,} words",
            ["", "words lost", "out of sequence", "seconds", "of 100 pages, median",
             "slowest file", "peak MB", "installed MB", "licence"],
            rows,
            "Words that pdftotext finds on a page and the reader does not; pairs of neighbours "
            "that are no neighbours here. Seconds of one core, after a warm-up. hanol reads with "
            "pypdfium2.",
        )
    )  # fmt: skip


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--folder", type=Path, default=ROOT / "build" / "documents", help="where files lie"
        )

    options = arguments(__doc__.splitlines()[0], 1, SECTIONS, more)
    report = Report("documents", "Readers of documents", "python benchmarks/documents.py")
    for section in options.only:
        {"pdf": pdf}[section](report, options)
    finish(report, options, ("pypdfium2", "pypdf"))


if __name__ == "__main__":
    main()
