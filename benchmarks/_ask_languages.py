"""Questions in one language, documents in another: pages of manuals that exist in both."""

import re
import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from _bench import Report, Table, progress
from _research_quality import ndcg
from hanol.errors import HanolError
from hanol.retrieval import Index, read_document, split_sentences

PAGES = 300  # of a manual, at most
DEPTH = 50  # passages asked for, so that ten different pages can be among them
_HANGUL = re.compile("[가-힣]")


def page_pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The English and the Korean file of each page of a manual, as Debian packs it."""
    roots = [
        (folder / english, folder / "ko")
        for english in ("en", "en-US")
        if (folder / english).is_dir() and (folder / "ko").is_dir()
    ]
    for english, korean in roots:
        for path in sorted(english.rglob("*.html")):
            other = korean / path.relative_to(english)
            if other.is_file():
                yield path, other


def text_of(path: Path) -> str:
    """The text of a page; none of one that cannot be read."""
    try:
        return "\n".join(page.text for page in read_document(path).pages)
    except HanolError:
        return ""


def question_of(text: str, is_korean: bool, rng: np.random.Generator) -> str | None:
    """A random sentence of a page."""
    found = [" ".join(text[s.start : s.end].split()) for s in split_sentences(text)]
    least, most = (20, 120) if is_korean else (40, 200)
    fit = [
        sentence
        for sentence in found
        if least <= len(sentence) <= most
        and (len(_HANGUL.findall(sentence)) > len(sentence) / 3) == is_korean
    ]
    return str(rng.choice(fit)) if fit else None


def languages(report: Report, options: Namespace) -> None:
    """NDCG of the page that a sentence of the other language is from."""
    rows = []
    for name, folder in (("installation guide", options.guide), ("LibreOffice help", options.help)):
        pairs = list(page_pairs(Path(folder)))
        if not pairs:
            report.figures[f"left out: {name} is not in {folder}"] = 1
            continue
        if options.quick:
            pairs = pairs[:5]
        rng = np.random.default_rng(0)
        chosen = [pairs[i] for i in sorted(rng.permutation(len(pairs))[:PAGES])]
        texts = [tuple(map(text_of, pair)) for pair in chosen]
        # Pages that were left in English are no test.
        both = [i for i, (_, ko) in enumerate(texts) if len(_HANGUL.findall(ko)) > len(ko) / 5]
        for is_korean in (True, False):  # the language of the documents
            asked = [question_of(texts[i][not is_korean], not is_korean, rng) for i in both]
            pages = [chosen[i][is_korean] for i in both]
            title = f"{name}, {'English' if is_korean else 'Korean'} questions"
            rows.append(
                [title, str(sum(map(bool, asked))), *_scores(report, title, pages, asked, options)]
            )
    if rows:
        report.tables.append(
            Table(
                "Across languages",
                ["", "questions", "words", "words and meaning", "meaning"],
                rows,
                f"nDCG@10 of the page that a sentence is from, among up to {PAGES} pages in the "
                f"other language. Meaning: {options.embedder}.",
            )
        )


def _scores(
    report: Report, title: str, pages: list[Path], asked: list[str | None], options: Namespace
) -> list[str]:
    modes = ("bm25", "hybrid", "dense")
    found: dict[str, list[float]] = {mode: [] for mode in modes}
    with TemporaryDirectory() as name, progress() as bar:
        task = bar.add_task(title, total=len(pages))
        for i, page in enumerate(pages):
            shutil.copyfile(page, Path(name) / f"{i:04}.html")
        with Index.open(name, embedder=options.embedder) as index:
            index.add()
            for i, question in enumerate(asked):
                for mode in modes if question else ():
                    passages = index.search(question, DEPTH, mode)
                    ranking = list(dict.fromkeys(passage.document for passage in passages))
                    found[mode].append(ndcg(ranking, frozenset({f"{i:04}.html"})))
                bar.advance(task)
    for mode, values in found.items():
        report.figures[f"{title}, nDCG@10, {mode}"] = float(np.mean(values))
    return [f"{np.mean(values):.3f}" for values in found.values()]
