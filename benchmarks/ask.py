"""Answers from documents: how many hold the evidence, how many refuse, how long they take.

    python benchmarks/ask.py [--only answers,reuse,languages] [--quick] [--json] [--record]

The questions are in `research_questions.jsonl`, those without an answer in
`ask_unanswerable.jsonl`. The tune half chose the weights and thresholds, the test half is reported.
Documents, models and packages that are not here are left out by name; `--model NAME=SPEC` adds a
model, `--embedder SPEC` search by meaning.
"""

import argparse
import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from _ask_languages import languages
from _bench import Report, Table, arguments, finish, progress
from _research_quality import (
    FOLDERS,
    Question,
    all_passages,
    make_tasks,
    plain,
    read_questions,
    write_corpora,
)
from hanol.engines import Engine, open_engine
from hanol.errors import HanolError
from hanol.research import Answer, CitedSentence, ask
from hanol.retrieval import Index
from hanol.runs import synchronous
from hanol.scoring import CITATION

HERE = Path(__file__).parent
NONE = HERE / "ask_unanswerable.jsonl"
ACCEPTED = HERE / "ask_answers.jsonl"
GROUPS = {"pdf": "English PDFs", "korean": "Korean newsletters", "pydoc": "Python manual"}
READ = 3  # first passages in which the evidence must be for the narrower figure
MODELS = {"smollm2 ranks": "smollm2", "smollm2-reader": "smollm2-reader"}
WRITES = "smollm2 writes"  # in its own words, as it comes

Answerer = Callable[[Index, str], Answer]


@dataclass(frozen=True)
class Asked:
    """A question and how it was answered.

    Args:
        question: None for one without an answer.
        is_read: Whether the evidence is in the first passages.
    """

    split: str
    group: str
    question: Question | None
    is_read: bool
    answer: Answer
    seconds: float


def packed(text: str) -> str:
    """Text for comparing: without citations, blanks, hyphens and case."""
    text = unicodedata.normalize("NFKC", CITATION.sub(" ", text))
    return re.sub(r"[\s\-‐-―\u200b]", "", text).lower()


def holds(text: str, wanted: str) -> bool:
    """Whether a text has another one; a number at its ends is a whole one."""
    pattern = re.escape(packed(wanted))
    pattern = rf"(?<![\d.]){pattern}" if pattern[:1].isdigit() else pattern
    pattern = rf"{pattern}(?!\d)" if pattern[-1:].isdigit() else pattern
    return re.search(pattern, packed(text)) is not None


def accepted() -> dict[str, list[str]]:
    """Shorter texts that only an answer has, by question: for answers in other words."""
    rows = map(json.loads, ACCEPTED.read_text("utf-8").splitlines())
    return {row["id"]: row["accept"] for row in rows}


def is_right(asked: Asked, shorter: dict[str, list[str]]) -> bool:
    """Whether an answer holds the evidence, or one of the accepted shorter texts."""
    assert asked.question is not None
    wanted = [asked.question.evidence, *shorter.get(asked.question.id, ())]
    said = " ".join(sentence.text for sentence in asked.answer.sentences)
    return any(holds(said, text) for text in wanted)


@dataclass(frozen=True)
class Case:
    """A question to ask; `is_read` as in `Asked`."""

    text: str
    split: str
    group: str
    question: Question | None = None
    is_read: bool = False


def cases(key: str, index: Index, quick: bool) -> list[Case]:
    """The questions about a folder, with and without an answer."""
    passages = all_passages(index)
    asked = [q for q in read_questions() if q.corpus in GROUPS and FOLDERS[q.corpus] == key]
    found = []
    for task in make_tasks(asked, passages):
        question = task.question
        first = [plain(passage.text) for passage in index.search(question.question, READ)]
        is_read = any(plain(question.evidence) in text for text in first)
        found.append(Case(question.question, question.split, question.corpus, question, is_read))
    if key == "documents":
        for row in map(json.loads, NONE.read_text("utf-8").splitlines()):
            found.append(Case(row["question"], row["split"], "none"))
    return found[:4] if quick else found


@contextmanager
def corpora(embedder: str | None) -> Iterator[dict[str, Index]]:
    """The folders that this machine has, indexed."""
    with TemporaryDirectory() as name, ExitStack() as stack, progress() as bar:
        folders = write_corpora(Path(name) / "corpora")
        task = bar.add_task("indexing the documents", total=len(folders) - 1)
        found = {}
        for key, folder in folders.items():
            if key == "docs":
                continue
            place = Path(name) / "index" / key
            found[key] = stack.enter_context(
                Index.open(folder, index_folder=place, embedder=embedder)
            )
            if failed := found[key].add().failed:
                raise HanolError(f"{failed[0].document} was not indexed: {failed[0].reason}")
            bar.advance(task)
        yield found


def run(name: str, answerer: Answerer, folders: dict[str, Index], quick: bool) -> list[Asked]:
    """Every question of every folder, one after another."""
    found = []
    with progress() as bar:
        work = [
            (index, case) for key, index in folders.items() for case in cases(key, index, quick)
        ]
        bar_task = bar.add_task(name, total=len(work))
        for index, case in work:
            began = time.perf_counter()
            answer = answerer(index, case.text)
            seconds = time.perf_counter() - began
            found.append(
                Asked(case.split, case.group, case.question, case.is_read, answer, seconds)
            )
            bar.advance(bar_task)
    return found


def first_sentence(answer: Answer) -> Answer:
    """An answer of its first sentence."""
    return Answer(answer.question, answer.sentences[:1], answer.quoted)


def answers(report: Report, options: argparse.Namespace) -> None:
    """Quoted and read answers, side by side."""
    results: dict[str, list[Asked]] = {}
    with corpora(None) as folders:
        if "documents" not in folders:
            report.figures["left out, its documents are not here: pdf, korean"] = 1
        results["quoted, first sentence"] = run(
            "quoted", lambda index, text: first_sentence(ask(index, text)), folders, options.quick
        )
        results["quoted"] = run("quoted", ask, folders, options.quick)
        for name, spec in models(options).items():
            if (engine := opened(spec, name, report)) is None:
                continue
            with closing(_Closed(engine)):
                results[name] = run(
                    name,
                    lambda index, text, e=engine: ask(index, text, e),
                    folders,
                    options.quick,
                )
                reuse(report, name, engine, folders, options.quick)
                if spec == "smollm2":
                    results[WRITES] = run(
                        WRITES,
                        lambda index, text, e=engine: ask(index, text, e, write=True),
                        folders,
                        options.quick,
                    )
    if options.embedder is not None:
        with corpora(options.embedder) as folders:
            results["quoted, words and meaning"] = run("meaning", ask, folders, options.quick)
    shorter = accepted()
    for split, is_read in (("test", True), ("test", False), ("tune", True), ("tune", False)):
        report.tables.append(table(report, results, split, is_read, shorter))


def table(
    report: Report,
    results: dict[str, list[Asked]],
    split: str,
    is_read: bool,
    shorter: dict[str, list[str]],
) -> Table:
    """One half of the questions: a row for each way to answer."""
    where = f", evidence in the first {READ} passages" if is_read else ""
    some = [one for one in next(iter(results.values())) if one.split == split]
    groups = [key for key in GROUPS if any(one.group == key for one in some)]
    rows = []
    for name, asked in results.items():
        half = [one for one in asked if one.split == split]
        cells = []
        for group in groups:
            of_group = [one for one in half if one.group == group and (one.is_read or not is_read)]
            right = sum(is_right(one, shorter) for one in of_group)
            cells.append(f"{right} of {len(of_group)}")
            report.figures[f"{split}{where}, {name}, {group}"] = right / max(1, len(of_group))
        none = [one for one in half if one.group == "none"]
        refused = sum(not one.answer.found for one in none)
        answerable = [one for one in half if one.question is not None]
        given = [s for one in answerable for s in one.answer.sentences]
        report.figures[f"{split}, {name}, refused"] = refused / max(1, len(none))
        report.figures[f"{split}, {name}, median seconds"] = median(o.seconds for o in half)
        rows.append(
            [
                name,
                *cells,
                f"{refused} of {len(none)}",
                _share(sum(bool(s.citations) for s in given), len(given)),
                _precision(given),
                f"{median(one.seconds for one in half):.2f}",
            ]
        )
    header = ["", *(GROUPS[key] for key in groups), "refused", "cited", "hold", "s"]
    note = (
        "Answers that hold the evidence of the question, or a shorter text that only an answer "
        "has (ask_answers.jsonl). refused: questions whose answer is in no document. cited: "
        "sentences with a citation; hold: citations whose passage holds the sentence, as "
        "`check_citations` judges. s: median seconds a question, search included."
    )
    return Table(f"Answers, {split} half{where}", header, rows, note)


def _precision(sentences: Sequence[CitedSentence]) -> str:
    places = [sentence.supported for sentence in sentences for _ in sentence.citations]
    return _share(sum(places), len(places))


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def reuse(
    report: Report, name: str, engine: Engine, folders: dict[str, Index], quick: bool
) -> None:
    """A second question to the same passages: what of its prompt is not read again."""
    index = next(iter(folders.values()))
    seconds: list[list[float]] = [[], []]
    cached = prompt = 0
    for case in [one for one in cases(next(iter(folders)), index, quick) if one.is_read][:8]:
        # The same words in another order find the same passages.
        for turn, text in enumerate((case.text, " ".join(reversed(case.text.split())))):
            answer = ask(index, text, engine)
            seconds[turn].append(answer.ledger.seconds)
        cached += answer.ledger.cached_tokens
        prompt += answer.ledger.prompt_tokens
    first, second = (median(values) for values in seconds)
    report.figures[f"{name}, share of a second prompt that was cached"] = cached / max(1, prompt)
    report.tables.append(
        Table(
            f"A second question to the same passages, {name}",
            ["", "median s"],
            [["first", f"{first:.2f}"], ["second", f"{second:.2f}"]],
            f"{100 * cached / max(1, prompt):.0f} % of the tokens of second prompts were cached.",
        )
    )


def models(options: argparse.Namespace) -> dict[str, str]:
    """Models to measure, by name."""
    given = dict(one.split("=", 1) for one in options.model or ())
    return MODELS | given


def opened(spec: str, name: str, report: Report) -> Engine | None:
    """A model; None, and a note, if it is not on this machine."""
    try:
        return open_engine(spec)
    except (HanolError, OSError) as err:
        report.figures[f"left out: {name} ({type(err).__name__})"] = 1
        return None


@dataclass
class _Closed:
    engine: Engine

    def close(self) -> None:
        synchronous(self.engine.aclose)()


def more_options(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides the options of all."""
    parser.add_argument(
        "--model", action="append", metavar="NAME=SPEC",
        help="one more model that reads, or another place of a known one; repeatable",
    )  # fmt: skip
    parser.add_argument("--embedder", help="model for search by meaning, such as e5-small")
    parser.add_argument("--guide", default="/usr/share/doc/installation-guide-amd64",
                        help="Debian's installation guide in English and Korean")  # fmt: skip
    parser.add_argument("--help-pages", dest="help", default="/usr/share/libreoffice/help",
                        help="LibreOffice's help in English and Korean")  # fmt: skip


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0], sections=("answers", "languages"), more=more_options
    )
    report = Report(
        "ask", "Answers from documents", f"python benchmarks/ask.py --threads {options.threads}"
    )
    if "answers" in options.only:
        answers(report, options)
    if "languages" in options.only:
        if options.embedder is None:
            report.figures["left out: languages, which need --embedder"] = 1
        else:
            languages(report, options)
    finish(report, options, ("transformers", "sentence-transformers", "pypdfium2"))


if __name__ == "__main__":
    main()
