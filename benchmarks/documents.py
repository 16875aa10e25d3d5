"""Readers of documents side by side, on real files: words kept, tables, seconds, memory.

    python benchmarks/documents.py [--quick] [--json] [--record] [--folder build/documents]
        [--peers PYTHON] [--share 1.0] [--kinds docx,pptx] [--show]

The files are those of Debian's packages (`_documents_files.py`); established tools say what is in
them: pdftotext (poppler-utils), pandoc, LibreOffice without a screen. A word counts as kept if the
reader gives it as often as the tool; Han, kana and Hangul count by character.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from _bench import ROOT, Report, Table, arguments, finish, progress
from _documents_files import LEFT_OUT, Real, real_files, references, table_rows
from _documents_pages import labelled_pages
from _documents_readers import READERS

SECTIONS = ("files", "readers", "pages")
LIMIT = 60.0  # seconds for one reader with one file
EVERY = 12  # file for the comparison with other readers, the slowest of which take a second a page
LEAST = 5  # files of a format in that comparison, if there are so many
BEFORE = "6a1b718"  # the last commit with the old readers: pypdf, python-docx, trafilatura, ...
CJK = "\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff\uf900-\ufaff"
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
BROKEN = re.compile(r"(?<=\w)[-\u2010\ufffe\x02][^\S\n]*\r?\n\s*|\u00ad\n?|(?<=\w)[\ufffe\x02]")
# Marks that a reader may leave out: vowels of Arabic and Hebrew stay, directions do not.
SILENT = dict.fromkeys(
    map(ord, "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u2060\ufeff\u0640")
)
SCRIPTS = {"ko": "\uac00-\ud7a3", "ja": "\u3040-\u30ff", "zh": "\u4e00-\u9fff"}


@dataclass
class Reading:
    """What a reader gave for a file."""

    pages: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = LIMIT
    megabytes: float = 0.0


class Reader:
    """A process that reads file after file, started again when it ends."""

    def __init__(self, name: str, options: argparse.Namespace, warm_up: list[Path]) -> None:
        self.about: dict[str, str | float] = {}
        self._name, self._options, self._warm_up = name, options, warm_up
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> Reading:
        if self._process is None:
            try:
                self._process = self._start()
            except OSError:
                return Reading()
            self.about = json.loads(self._process.stdout.readline() or "{}")
            if self._name == "hanol" and not self.about:
                raise SystemExit("hanol's reader does not start: _documents_readers.py hanol")
            if self.about:
                for each in self._warm_up:
                    self._answer(self._process, each)
        return self._answer(self._process, path) if self.about else Reading()

    def _start(self) -> "subprocess.Popen[str]":
        script = ROOT / "benchmarks" / "_documents_readers.py"
        python = sys.executable if self._name == "hanol" else self._options.peers
        before = {"PYTHONPATH": str(self._options.folder / "before" / "src")}
        return subprocess.Popen(
            [python, script, self._name], text=True, encoding="utf-8", stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, **(before if self._name == "before" else {})},
        )  # fmt: skip

    def _answer(self, process: "subprocess.Popen[str]", path: Path) -> Reading:
        late = threading.Timer(LIMIT, process.kill)
        late.start()
        try:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            return Reading(**json.loads(process.stdout.readline()))
        except (BrokenPipeError, json.JSONDecodeError):
            self.close()
            return Reading()
        finally:
            late.cancel()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def fetch_old_readers(place: Path) -> None:
    """The sources of hanol before its present readers, out of git's history."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["git", "archive", BEFORE, "src"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 0:
        subprocess.run(["tar", "x", "-C", place], input=done.stdout, check=True)


def read_all(name: str, found: list[Real], options: argparse.Namespace) -> list[Reading]:
    """What a reader gives for each file, some files at once; seconds are the processor's."""
    smallest = {f.kind: f.path for f in sorted(found, key=lambda f: -f.path.stat().st_size)}
    idle = [Reader(name, options, list(smallest.values())) for _ in range(options.threads)]
    readers = list(idle)

    def one(file: Real) -> Reading:
        each = idle.pop()
        try:
            return each.read(file.path)
        finally:
            idle.append(each)

    with progress() as bar, ThreadPoolExecutor(len(readers)) as pool:
        out = list(bar.track(pool.map(one, found), len(found), description=name))
    options.about[name] = readers[0].about
    for each in readers:
        each.close()
    return out


def by_kind(name: str, found: list[Real], options: argparse.Namespace) -> list[Reading]:
    """`read_all` in processes of their own for each kind, whose memory then is that of the kind."""
    return [
        reading
        for kind in dict.fromkeys(file.kind for file in found)
        for reading in read_all(name, [file for file in found if file.kind == kind], options)
    ]


# --- scores ---------------------------------------------------------------------


NOISE = re.compile(r"(?<=\d[.,])(\d{9})\d+")  # digits that differ where a sum is taken anew


def words(page: str) -> list[str]:
    text = unicodedata.normalize("NFKC", BROKEN.sub("", page).translate(SILENT))
    return WORD.findall(NOISE.sub(r"\1", text).casefold())


def squeezed(text: str) -> str:
    return "".join(words(text))


def lost(theirs: list[str], ours: list[str]) -> tuple[int, Counter[str], int]:
    """Number of words, those that are lost, and how many are of the reader's own making.

    Page by page where both have as many pages. A word that one of the two cuts or joins with its
    neighbour is not lost: what is left over on both sides is looked for without spaces.
    """
    if len(theirs) != len(ours):
        theirs, ours = ["\n".join(theirs)], ["\n".join(ours)]
    total = made = 0
    missing: Counter[str] = Counter()
    for their, our in zip(theirs, ours, strict=True):
        wanted, found = words(their), words(our)
        total += len(wanted)
        for count, here, there, one in (
            (missing, wanted, found, "".join(found)),
            (more := Counter[str](), found, wanted, "".join(wanted)),
        ):
            have = Counter(there)
            for word, n in (Counter(here) - have).items():
                if (left := n - max(0, one.count(word) - have[word])) > 0:
                    count[word] += left
        made += more.total()
    return total, missing, made


def language(pages: Iterable[str]) -> str:
    text = "".join(pages)[:20_000]
    for name, letters in SCRIPTS.items():
        if len(re.findall(f"[{letters}]", text)) > 0.05 * len(text):
            return name
    return "other"


def rows_kept(rows: list[list[str]], pages: list[str]) -> int:
    """How many rows of tables stand on one line, cell after cell."""
    lines = [squeezed(line) for page in pages for line in page.splitlines()]
    count = 0
    for row in rows:
        pattern = re.compile(".*?".join(map(squeezed, row)))
        count += any(map(pattern.search, lines))
    return count


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %" if whole else ""


# --- sections -------------------------------------------------------------------


def files(report: Report, options: argparse.Namespace) -> None:
    """Real files as `hanol index` reads them: what is lost, what is refused, how long it takes."""
    found, told = options.found, options.told
    ours = by_kind("hanol", found, options)
    # the old reader of PDFs takes long; speed is that of the files that both read in this run
    some = [i for i, file in enumerate(found) if file.kind != "pdf" or i % 3 == 0]
    before = dict(zip(some, by_kind("before", [found[i] for i in some], options), strict=True))
    table, ratios = [], []
    losses: dict[tuple[str, str], list[int]] = {}  # by kind or language, and tool
    shown = []
    for file, reading in zip(found, ours, strict=True):
        for tool, pages in told[file.path].items():
            total, missing, _ = lost(pages, reading.pages)
            for key in ((file.kind, tool), (language(pages), "all")):
                sums = losses.setdefault(key, [0, 0, 0])
                sums[0], sums[1], sums[2] = sums[0] + total, sums[1] + missing.total(), sums[2] + 1
            shown.append((missing.total(), total, tool, file, reading, missing))
    if options.show:
        for n, total, tool, file, reading, missing in sorted(shown, key=lambda s: -s[0])[:80]:
            print(n, total, tool, file.path.name, f"{reading.seconds:.2f}s", reading.error[:90],
                  dict(missing.most_common(8)))  # fmt: skip
    for kind in dict.fromkeys(file.kind for file in found):
        chosen = [i for i, file in enumerate(found) if file.kind == kind]
        some = [ours[i] for i in chosen]
        refused = [r for r in some if not "".join(r.pages)]
        silent = [r for r in refused if not r.error]
        faster = [before[i].seconds / ours[i].seconds for i in chosen
                  if i in before and before[i].pages and not ours[i].error]  # fmt: skip
        ratios += faster
        seconds = [r.seconds for r in some]
        by_tool = ", ".join(f"{percent(n, total)} ({tool})" for (k, tool), (total, n, _)
                            in losses.items() if k == kind)  # fmt: skip
        table.append(
            [kind, str(len(some)), by_tool, str(len(refused) - len(silent)), str(len(silent)),
             f"{1000 * median(seconds):.0f}", f"{max(seconds):.1f}",
             f"{median(faster):.2f}" if faster else "", f"{max(r.megabytes for r in some):.0f}"]
        )  # fmt: skip
        for (k, tool), (total, n, _) in losses.items():
            if k == kind:
                report.figures[f"files, {kind}: words lost beside {tool}"] = n / max(1, total)
        report.figures |= {
            f"files, {kind}: without a word": len(silent),
            f"files, {kind}: slowest, seconds": max(seconds),
        }
        if faster:
            report.figures[f"files, {kind}: old reader's seconds over ours"] = median(faster)
    report.figures["files"] = len(found)
    report.tables.append(
        Table(
            f"{len(found)} files of Debian's packages",
            ["", "files", "words lost", "refused, and why", "without a word", "median ms",
             "slowest s", "old readers' time", "peak MB"],
            table,
            "Words that the tool in brackets finds and hanol does not, headers and footers of "
            f"web pages left out. {LEFT_OUT} Seconds of the processor in a process that goes on "
            "reading; time of the old readers (pypdf, python-docx, trafilatura, ...) as a "
            "multiple, median of the files that both read (of PDFs every third one). Over all "
            f"{len(ratios)} files: {median(ratios or [0]):.2f}.",
        )
    )  # fmt: skip
    pdfs = [(r.seconds / len(r.pages) * 100, len(r.pages)) for f, r in zip(found, ours, strict=True)
            if f.kind == "pdf" and r.pages]  # fmt: skip
    speed = ""
    if pdfs:
        taken = median(s for s, _ in pdfs)
        report.figures["files, pdf: seconds of 100 pages, median"] = taken
        speed = f" 100 pages of PDF take {taken:.2f} s (median)."
    if ratios:
        report.figures["files: old readers' seconds over ours, median"] = median(ratios)
    report.tables.append(
        Table(
            "The same by language",
            ["", "files", "words", "words lost"],
            [[name, str(count), f"{total:,}", percent(n, total)]
             for (name, tool), (total, n, count) in sorted(losses.items()) if tool == "all"],
            f"By the letters of the text; a file that two tools read counts twice.{speed}",
        )
    )  # fmt: skip


def readers(report: Report, options: argparse.Namespace) -> None:
    """Each format's candidates on some of the files."""
    for kind in dict.fromkeys(file.kind for file in options.found):
        some = [file for file in options.found if file.kind == kind and options.told[file.path]]
        some = some[:: max(1, min(EVERY, len(some) // LEAST))]
        rows = {f.path: table_rows(f, options.told[f.path]) for f in some}
        table = []
        for name, (_, _, kinds) in READERS.items():
            if kind not in kinds.split() or name == "before":
                continue
            found = read_all(name, some, options)
            if not (about := options.about[name]):
                table.append([name, "not installed", *[""] * 7])
                continue
            total = missing = made = kept = 0
            for file, reading in zip(some, found, strict=True):
                n, left, more = lost(next(iter(options.told[file.path].values())), reading.pages)
                total, missing, made = total + n, missing + left.total(), made + more
                kept += rows_kept(rows[file.path], reading.pages)
            seconds = [r.seconds for r in found]
            size = about.get("megabytes")
            table.append(
                [f"{name} {about.get('version', '')}".strip(), percent(missing, total),
                 percent(made, total), percent(kept, sum(map(len, rows.values()))),
                 f"{sum(seconds):.1f}", f"{max(seconds):.1f}",
                 f"{max(r.megabytes for r in found):.0f}", f"{size:.0f}" if size else "",
                 str(about.get("licence", ""))]
            )  # fmt: skip
            report.figures |= {
                f"readers, {kind}, {name}: words lost": missing / max(1, total),
                f"readers, {kind}, {name}: seconds": sum(seconds),
            }
        report.tables.append(
            Table(
                f"Readers of {kind}: {len(some)} files",
                ["", "words lost", "words of its own", "rows on one line", "seconds",
                 "slowest file", "peak MB", "installed MB", "licence"],
                table,
            )
        )  # fmt: skip
    report.tables[-1].note = (
        f"Every {EVERY}th file of those above, or {LEAST}, beside its first tool. Words of its "
        "own: what the tool does not have (comments, charts, names of columns at each row). Rows "
        "on one line: of tables, cell after cell. Installed: with all that the package needs; "
        "hanol reads PDFs with pypdfium2 and pypdf, the rest with lxml."
    )


def pages(report: Report, options: argparse.Namespace) -> None:
    """Sentences of web pages and what stands beside them."""
    labelled = [] if options.quick else list(labelled_pages(options.folder))
    wanted = beside = 0
    table = []
    for form in ("as it is", "without names"):
        some = [Real("html", page.package, page.paths[form]) for page in labelled]
        for name, (_, _, kinds) in READERS.items():
            if "html" not in kinds.split() or name in ("kreuzberg", "markitdown"):
                continue
            found = read_all(name, some, options)
            if not options.about[name]:
                table.append([name, form, "not installed", "", ""])
                continue
            wanted = gone = beside = kept = 0
            for page, reading in zip(labelled, found, strict=True):
                text = squeezed("".join(reading.pages))
                left = [s for s in page.sentences if squeezed(s) not in text]
                more = [s for s in page.beside if squeezed(s) in text]
                if options.show and name == "hanol":
                    print(
                        form, page.paths[form], len(left), len(page.sentences), left[:6], more[:6]
                    )
                wanted, gone = wanted + len(page.sentences), gone + len(left)
                beside += sum(map(len, page.beside))
                kept += sum(map(len, more))
            table.append([name, form, percent(gone, wanted), percent(kept, beside),
                          f"{sum(r.seconds for r in found):.2f}"])  # fmt: skip
            report.figures |= {
                f"pages {form}, {name}: sentences lost": gone / max(1, wanted),
                f"pages {form}, {name}: boilerplate kept": kept / max(1, beside),
            }
    report.tables.append(
        Table(
            f"{len(labelled)} web pages: {wanted:,} sentences, {beside:,} characters beside them",
            ["", "page", "sentences lost", "boilerplate kept", "seconds"],
            table,
            "Pages of documentation by 15 generators, labelled by what each generator calls its "
            "parts; also with classes, ids and roles taken away before they are read.",
        )
    )


def prepare(options: argparse.Namespace) -> None:
    """Fetch the files and what the tools find in them."""
    if options.quick:
        options.found = [Real("html", "made", options.folder / "quick.html")]
        options.folder.mkdir(parents=True, exist_ok=True)
        text = "The tide of the first bay comes at noon."
        options.found[0].path.write_text(f"<html><body><p>{text}</p></body></html>")
        options.told = {options.found[0].path: {"made": [text]}}
        return
    fetch_old_readers(options.folder / "before")
    options.found = list(real_files(options.folder, options.share, options.kinds))
    options.told = references(options.found, options.folder)


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--folder", type=Path, default=ROOT / "build" / "documents", help="where files lie"
        )
        parser.add_argument("--peers", default=sys.executable, help="Python with other readers")
        parser.add_argument("--share", type=float, default=1.0, help="of the files of a package")
        parser.add_argument("--kinds", help="of files, with commas between them; all by default")
        parser.add_argument("--show", action="store_true", help="print what is lost, file by file")

    options = arguments(__doc__.splitlines()[0], 2, SECTIONS, more)
    part = f" BENCH='--share {options.share}'" if options.share != 1 else ""
    report = Report("documents", "Readers of documents", f"make bench-documents{part}")
    options.about = {}
    options.folder = options.folder.resolve()
    prepare(options)
    for section in options.only:
        {"files": files, "readers": readers, "pages": pages}[section](report, options)
    finish(report, options, ("pypdfium2", "pypdf", "lxml"))


if __name__ == "__main__":
    main()
