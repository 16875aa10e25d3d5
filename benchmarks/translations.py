"""Which sentence of another language says the same: embedding models beside shared words.

    python benchmarks/translations.py --help-folder /usr/share/libreoffice/help [--quick] [--record]

The sentences are paragraphs of LibreOffice's help that exist in English, Korean and Chinese, found
by their ids (Debian packages libreoffice-help-en-us, -ko and -zh-cn, which can be unpacked anywhere
with `dpkg -x`). Models that are not pulled, and all of it without the help, are left out by name.
"""

import argparse
import re
import time
from itertools import permutations
from pathlib import Path

import numpy as np

from _bench import Report, Table, arguments, finish, progress
from hanol.files import cache_folder
from hanol.retrieval import SentenceEmbedder, rank_texts

FOLDERS = {"en": "en-US", "ko": "ko", "zh": "zh-CN"}
LETTERS = {"ko": re.compile("[가-힣]"), "zh": re.compile("[一-鿿]")}
MODELS = ("e5-small", "minilm")
SENTENCES = 200  # among which the translation is looked for
FEWEST_WORDS = 6


def paragraphs(folder: Path) -> dict[tuple[str, str], str]:
    """Text of every paragraph of the help in one language, by page and id."""
    from lxml import html

    found = {}
    for path in sorted((folder / "text").rglob("*.html")):
        for element in html.fromstring(path.read_bytes()).xpath("//*[starts-with(@id,'par_id')]"):
            text = re.sub(r"\s+", " ", element.text_content()).strip()
            found[str(path.relative_to(folder)), element.get("id")] = text
    return found


def triples(folder: Path) -> list[dict[str, str]]:
    """Paragraphs of six words and more in the three languages, each English one once."""
    by_language = {name: paragraphs(folder / place) for name, place in FOLDERS.items()}
    found = {}
    for key, english in by_language["en"].items():
        row = {name: texts.get(key, "") for name, texts in by_language.items()}
        is_translated = all(letters.search(row[name]) for name, letters in LETTERS.items())
        if is_translated and len(english.split()) >= FEWEST_WORDS:
            found.setdefault(english, row)
    return list(found.values())


def by_words(queries: list[str], texts: list[str]) -> list[int]:
    """The best text for each query by words alone; -1 where none shares any."""
    best = []
    for query in queries:
        ranked = rank_texts(texts, query)
        best.append(ranked[0] if ranked else -1)
    return best


def measure(report: Report, folder: Path, quick: bool) -> None:
    """Recall@1 of translations in every direction."""
    rows = triples(folder)
    report.figures["triples"] = len(rows)
    number = 20 if quick else SENTENCES
    chosen = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:number]]
    texts = {name: [row[name] for row in chosen] for name in FOLDERS}
    directions = list(permutations(FOLDERS, 2))
    table = {"shared words": [by_words(texts[a], texts[b]) for a, b in directions]}
    with progress() as bar:
        task = bar.add_task("embedding", total=len(MODELS))
        for name in MODELS:
            if not (cache_folder() / name).is_dir():
                report.figures[f"left out: {name} is not pulled"] = 1
                continue
            embedder = SentenceEmbedder(name)
            embedder.encode_query("warm up")
            begin = time.perf_counter()
            passages = {key: embedder.encode_documents(some) for key, some in texts.items()}
            seconds = time.perf_counter() - begin
            report.figures[f"{name}: paragraphs a second"] = 3 * number / seconds
            queries = {key: np.stack([*map(embedder.encode_query, texts[key])]) for key in texts}
            table[name] = [
                (queries[a] @ passages[b].T).argmax(axis=1).tolist() for a, b in directions
            ]
            bar.advance(task)
    cells = []
    for name, columns in table.items():
        shares = [float(np.mean(np.array(best) == np.arange(number))) for best in columns]
        for (a, b), share in zip(directions, shares, strict=True):
            report.figures[f"{name}: {a} to {b}"] = share
        cells.append([name, *(f"{share:.3f}" for share in shares)])
    report.tables.append(
        Table(
            f"Recall@1 of the translation among {number} paragraphs",
            ["", *(f"{a} to {b}" for a, b in directions)],
            cells,
            f"Paragraphs of LibreOffice's help, drawn from {len(rows):,} with seed 0.",
        )
    )


def more_options(parser: argparse.ArgumentParser) -> None:
    """Where the help is."""
    parser.add_argument(
        "--help-folder",
        type=Path,
        default=Path("/usr/share/libreoffice/help"),
        help="folder with en-US, ko and zh-CN of LibreOffice's help",
    )


def main() -> None:
    options = arguments(__doc__.splitlines()[0], more=more_options)
    report = Report(
        "translations",
        "Across languages",
        f"python benchmarks/translations.py --threads {options.threads}",
    )
    if all((options.help_folder / place / "text").is_dir() for place in FOLDERS.values()):
        measure(report, options.help_folder, options.quick)
    else:
        report.figures[f"left out: no help in three languages in {options.help_folder}"] = 1
    finish(report, options, ("transformers", "sentence-transformers"))


if __name__ == "__main__":
    main()
