"""Tasks by what a command calls them: worlds, published question sets, files, own functions."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from hanol.errors import ConfigError, DataError, UnknownNameError
from hanol.evaluation._benchmarks import BENCHMARKS, read_benchmark
from hanol.evaluation.tasks._scorers import open_scorer, stated
from hanol.evaluation.tasks._solvers import open_solver
from hanol.evaluation.tasks._task import EvalTask, TaskItem, TaskScorer
from hanol.rows import read_rows
from hanol.worlds import AnyPage, GraphQuestion, MathProblem, World, is_world, open_problems
from hanol.worlds import open_world as _open_world

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
_QUESTION = ("question", "problem", "prompt", "input", "Question", "Prompt")
_ANSWER = ("answer", "answers", "target", "reference", "final_answer", "Answer", "Final answer")
_OWN = {*_QUESTION, *_ANSWER, "id", "verifier", "group", "level", "choices", "source"}
# Scorers of published sets: what their own code does where that is a program, else equality.
_SCORERS = {"gaia": "gaia"}
# Verifiers that a row may name: a file from elsewhere must not choose which module is imported.
_VERIFIERS = ("arithmetic", "python", "regex", "countdown", "gym", "humaneval", "hanol.worlds")
_HOPS = (1, 2, 3)
_OTHERS = 4  # pages in an open-book question that do not answer it

_OPEN_BOOK = """\
Answer from these pages.

{pages}

Question: {question}
Answer with the answer alone, in a few words."""


def open_task(
    spec: str,
    *,
    solver: str = "generate",
    scorer: str | TaskScorer | None = None,
    count: int | None = None,
    seed: int = 0,
) -> EvalTask:
    """A task by name.

    Args:
        spec: Problems of a world or package, in the split that is kept for tests (chains,
            countdown, stories, sums, capitals, gym:NAME, humaneval; see
            `hanol.worlds.open_problems`); "encyclopedia:SEED" or "factbook", questions of one to
            three hops with their pages in the prompt; "NAME:FILE", a published question set
            (gaia, browsecomp, hle, webwalkerqa, frames, simpleqa; see `BENCHMARKS`); a file of
            rows with "question" and "answer" (or "problem", "prompt", "input"; "target",
            "reference"), and if wanted "id", "verifier", "choices", "group", "source"; or
            "module:function", a function that returns an `EvalTask`.
        solver: See `open_solver`.
        scorer: See `open_scorer`; None takes the task's own: the verifiers of problems, the checks
            of a world, "gaia" for GAIA, "exact" for other sets, "row" for files.
        count: Number of items; None takes 100 of what is generated, and all of a file.
        seed: Seed of what is generated; of a file it chooses which items are taken.

    Raises:
        ConfigError: There is no such task, solver or scorer.
        UnknownNameError: There is no such question set.
        DataError: A file cannot be read, or a row lacks question or answer.
    """
    name, _, rest = spec.partition(":")
    own: str | TaskScorer
    if is_world(spec):
        world = _open_world(spec, split="test")
        items, own = _of_world(world, 100 if count is None else count, seed, spec)
    elif rest and (name in BENCHMARKS or rest.endswith(_SUFFIXES)) and name != "factbook":
        if name not in BENCHMARKS:
            raise UnknownNameError("question set", name, BENCHMARKS)
        items = [
            TaskItem(one.id, one.question, (one.answer,) if isinstance(one.answer, str)
                     else one.answer)
            for one in read_benchmark(name, rest)
        ]  # fmt: skip
        items, own = _some(items, count, seed, spec), _SCORERS.get(name, "exact")
    elif spec.endswith(_SUFFIXES):
        items = _some(_of_file(spec), count, seed, spec)
        own = "row"
    elif rest.isidentifier() and name.replace(".", "").isidentifier() and name != "gym":
        return _own_function(spec, count, seed)
    else:
        problems = open_problems(spec, count=count, seed=seed, split="test")
        items, own = [_of_problem(one) for one in problems], "verify"
    chosen = own if scorer is None else scorer
    made = open_scorer(chosen) if isinstance(chosen, str) else chosen
    return EvalTask(spec, tuple(items), open_solver(solver), made)


def _own_function(spec: str, count: int | None, seed: int) -> EvalTask:
    module, _, name = spec.partition(":")
    try:
        found = getattr(import_module(module), name, None)
    except ImportError as err:
        raise ConfigError(
            f"{spec!r} names no task, and the module {module!r} cannot be imported: {err}"
        ) from err
    made = found() if callable(found) else None
    if not isinstance(made, EvalTask):
        raise ConfigError(f"{spec!r} is no function that returns an `EvalTask`.")
    return replace(made, items=_some(list(made.items), count, seed, spec))


def _some(items: list[TaskItem], count: int | None, seed: int, spec: str) -> list[TaskItem]:
    """So many items, in their order."""
    if count is None or count >= len(items):
        return items
    chosen = Random(f"{spec} {seed}").sample(range(len(items)), count)  # noqa: S311
    return [items[i] for i in sorted(chosen)]


def _of_problem(problem: MathProblem) -> TaskItem:
    return TaskItem(
        problem.id,
        problem.problem,
        (problem.answer,) if problem.answer else (),
        problem.verifier,
        "" if problem.level is None else f"level {problem.level}",
        extra=dict(problem.extra),
    )


# -- worlds


def _of_world(
    world: World[AnyPage], count: int, seed: int, spec: str
) -> tuple[list[TaskItem], TaskScorer]:
    each, more = divmod(count, len(_HOPS))
    asked: dict[str, GraphQuestion] = {}
    for place, hops in enumerate(_HOPS):
        if number := each + (place < more):
            asked |= {one.id: one for one in world.questions(number, hops=hops, seed=seed)}
    items = [
        TaskItem(one.id, _open_book(world, one, seed), one.answers, group=f"{one.hops} hops")
        for one in asked.values()
    ]

    def score(item: TaskItem, text: str) -> bool:
        return any(world.is_right(asked[item.id], one) for one in stated(text))

    return items, TaskScorer(f"world:{spec}", score)


def _open_book(world: World[AnyPage], question: GraphQuestion, seed: int) -> str:
    """The question behind the pages that answer it, and some that do not, in a drawn order."""
    rng = Random(f"{question.id} {seed}")  # noqa: S311
    needed = dict.fromkeys(question.sources)
    others = [page.address for page in rng.sample(list(world.pages), _OTHERS + len(needed))]
    addresses = [*needed, *[one for one in others if one not in needed][:_OTHERS]]
    rng.shuffle(addresses)
    pages = "\n\n".join(world.page(one).markdown.strip() for one in addresses)
    return _OPEN_BOOK.format(pages=pages, question=question.text)


# -- files


def _of_file(path: str) -> list[TaskItem]:
    return [
        _of_row(row, f"{path!r}, line {line}", str(row.get("id") or f"{Path(path).stem}-{line}"))
        for line, row in read_rows(path)
    ]


def _of_row(row: dict[str, Any], where: str, name: str) -> TaskItem:
    question = _value(row, _QUESTION)
    if not isinstance(question, str):
        raise DataError(f"{where}: none of the keys {', '.join(_QUESTION[:4])} has a text.")
    found = _value(row, _ANSWER)
    answers = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(one, str | int | float) for one in answers):
        raise DataError(f"{where}: the answer is {found!r:.60}, but is a text, number or list.")
    verifier = row.get("verifier")
    if verifier and str(verifier).partition(":")[0] not in _VERIFIERS:
        raise DataError(
            f"{where}: a row cannot name the verifier {verifier!r:.60}: its module would be "
            "imported. Give it yourself: --scorer verify:MODULE:FUNCTION."
        )
    if not answers and not verifier:
        raise DataError(f"{where}: none of the keys {', '.join(_ANSWER[:5])} has a value.")
    extra = {key: value for key, value in row.items() if key not in _OWN}
    if choices := _choices(row, where):
        extra["choices"] = choices
        question, answers = _with_choices(question, answers, choices, where)
    group = row.get("group", row.get("level"))
    source = row.get("source")
    return TaskItem(
        name,
        question,
        tuple(map(str, answers)),
        None if verifier is None else str(verifier),
        "" if group is None else str(group),
        source if isinstance(source, str) else None,
        extra,
    )


def _value(row: dict[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)


def _choices(row: dict[str, Any], where: str) -> list[str]:
    found = row.get("choices") or []
    if isinstance(found, str):  # of a CSV file
        try:
            found = json.loads(found)
        except ValueError:
            found = re.split(r"\s*\|\s*", found)
    if not isinstance(found, list) or not all(isinstance(one, str | int | float) for one in found):
        raise DataError(f'{where}: "choices" is no list of texts.')
    if len(found) > 26:
        raise DataError(f'{where}: "choices" has {len(found)} options; there are 26 letters.')
    return list(map(str, found))


def _with_choices(
    question: str, answers: list[Any], choices: list[str], where: str
) -> tuple[str, list[str]]:
    """The question with lettered options, and the letter of the right one."""
    letters = [chr(ord("A") + place) for place in range(len(choices))]
    wanted = str(answers[0]).strip() if answers else ""
    if wanted in choices:
        right = letters[choices.index(wanted)]
    elif wanted.isdecimal() and int(wanted) < len(choices):
        right = letters[int(wanted)]  # a position from 0, as most sets have it
    elif wanted.upper() in letters:
        right = wanted.upper()
    else:
        raise DataError(
            f"{where}: the answer {wanted!r} is none of the choices, no letter and no position."
        )
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, choices, strict=True))
    return f"{question}\n\n{lines}\n\nAnswer with the letter of the right option.", [right]
