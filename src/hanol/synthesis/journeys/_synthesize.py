"""Many trees, and the rows of all of them: resumable, with what was left out and why."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hanol.engines import CachedEngine, Engine, Message
from hanol.errors import ConfigError, DataError
from hanol.rows import JsonLines, replace_rows
from hanol.runs import ResumeGuard, alone, gather
from hanol.synthesis.journeys._grow import agrow_tree
from hanol.synthesis.journeys._judge import StepJudge, VerifierJudge
from hanol.synthesis.journeys._rewrite import arewrite
from hanol.synthesis.journeys._rows import (
    ARMS,
    PairedThoughts,
    paired_rows,
    preference_rows,
    token_matched,
)
from hanol.synthesis.journeys._tree import ReasoningTree
from hanol.synthesis.journeys._write import TreeSettings
from hanol.worlds import MathProblem

_CALLS, _TREES = "calls.jsonl", "trees.jsonl"


@dataclass(frozen=True)
class JourneyReport:
    """Counts of trees and rows.

    Attributes:
        folder: Where the rows are.
        problems: Problems that were tried.
        trees: Trees that became rows.
        dropped: Problems that did not, by reason.
        first_failure: What was wrong with the first problem whose judge failed; empty if none did.
        nodes: Steps of the trees.
        backtracks: Wrong turns that are undone in the journeys.
        rewritten: Journeys in a model's words, and rewrites that lost something and were refused.
        rows: Rows of each arm.
        tokens: Tokens of each arm's answers, as the model counts them.
    """

    folder: str
    problems: int
    trees: int
    dropped: dict[str, int]
    first_failure: str
    nodes: int
    backtracks: int
    rewritten: tuple[int, int]
    rows: dict[str, int]
    tokens: dict[str, int]


async def asynthesize_journeys(
    problems: Iterable[MathProblem],
    engine: Engine,
    folder: str | Path,
    *,
    num_trees: int,
    judge: StepJudge | None = None,
    rewriter: Engine | None = None,
    settings: TreeSettings | None = None,
    varied: bool = True,
    seed: int = 0,
    concurrency: int = 8,
    on_tree: Callable[[int], None] = lambda kept: None,
) -> JourneyReport:
    """Grow trees until there are enough, and write the rows that they make.

    A tree is kept if it has a correct leaf and a wrong turn, so that its journey is not its
    shortcut. Writes FOLDER/trees.jsonl; shortcuts.jsonl and journeys.jsonl, in which row i is of
    the same tree; token-matched.jsonl, shuffled.jsonl and wrong-answers.jsonl; preferences.jsonl.
    A run that was killed goes on: it repeats no finished call, and gives the same rows.

    Args:
        problems: Taken in order until there are enough trees.
        engine: Writes the steps; it has to be able to continue a `prefill`.
        folder: Folder of the rows.
        num_trees: Number of trees; fewer are made when the problems are used up.
        judge: Judges the steps; None is `VerifierJudge`.
        rewriter: Puts the journeys into its own words; None keeps the drafts.
        settings: How trees are grown.
        varied: Draw the wordings of reflection and return.
        seed: The same seed, problems and models give the same rows.
        concurrency: Number of problems at a time; it does not change the result.
        on_tree: Called with the number of trees whenever it grows.

    Raises:
        ConfigError: A number is below 1.
        DataError: No tree was kept.
        RunError: The folder has journeys made with other settings, or another process writes it.
        EngineError: A model did not answer.
    """
    for name, value in (("num_trees", num_trees), ("concurrency", concurrency)):
        if value < 1:
            raise ConfigError(f"`{name}` is {value}, but must be 1 or more.")
    folder, judge, settings = Path(folder), judge or VerifierJudge(), settings or TreeSettings()
    guard = ResumeGuard(
        folder,
        {
            "model": engine.name, "judge": judge.name, "seed": seed, "varied": varied,
            "rewriter": rewriter and rewriter.name, "settings": asdict(settings),
        },
        what="journeys", file="journeys.yaml", made=(_TREES,),
    )  # fmt: skip
    with alone(folder):
        if not guard.check(resume=True):
            guard.write()
        made = _Trees(folder, engine, judge, settings, seed)
        await made.grow(problems, num_trees, concurrency, on_tree)
        if not made.kept:
            why = ", ".join(f"{n} {reason}" for reason, n in made.dropped.items()) or "no problems"
            raise DataError(
                f"None of {made.tried} problems made a tree ({why}). Take easier problems, a "
                f"better model, or more steps at a time. {made.first_failure}"
            )
        pairs = [PairedThoughts.of(tree, seed, varied=varied) for tree in made.kept]
        rewrites = (0, 0)
        if rewriter is not None:
            pairs, rewrites = await _rewritten(
                pairs, CachedEngine(rewriter, folder / _CALLS), seed, concurrency
            )
        rows, tokens = _written(folder, pairs, engine)
    return JourneyReport(
        folder=str(folder),
        problems=made.tried,
        trees=len(pairs),
        dropped=dict(made.dropped),
        first_failure=made.first_failure,
        nodes=sum(len(tree.nodes) for tree in made.kept),
        backtracks=sum(pair.long.num_backtracks for pair in pairs),
        rewritten=rewrites,
        rows=rows,
        tokens=tokens,
    )


class _Trees:
    """Trees of a folder, those of an earlier call included."""

    def __init__(
        self, folder: Path, engine: Engine, judge: StepJudge, settings: TreeSettings, seed: int
    ) -> None:
        self._engine = CachedEngine(engine, folder / _CALLS)
        self._judge, self._settings, self._seed = judge, settings, seed
        self._log = JsonLines(folder / _TREES)
        self._known = {row["id"]: ReasoningTree.from_dict(row) for row in self._log.read()}
        self.kept: list[ReasoningTree] = []
        self.dropped: Counter[str] = Counter()
        self.tried, self.first_failure = 0, ""

    async def grow(
        self,
        problems: Iterable[MathProblem],
        wanted: int,
        concurrency: int,
        on_tree: Callable[[int], None],
    ) -> None:
        """Grow trees of problems in order, some at a time; never more than may be needed."""
        left = iter(problems)
        while some := list(islice(left, min(concurrency, wanted - len(self.kept)))):
            grown = await gather(self._tree, some, concurrency=concurrency)
            for tree in grown:
                self.tried += 1
                if isinstance(tree, str):
                    self.dropped["judge_failed"] += 1
                    self.first_failure = self.first_failure or tree
                elif not tree.correct_leaves:
                    self.dropped["no_correct_leaf"] += 1
                elif not PairedThoughts.of(tree, self._seed).long.num_backtracks:
                    self.dropped["no_wrong_turn"] += 1
                else:
                    self.kept.append(tree)
                    on_tree(len(self.kept))

    async def _tree(self, problem: MathProblem) -> ReasoningTree | str:
        if (known := self._known.get(problem.id)) is not None and known.problem == problem.problem:
            return known
        try:
            tree = await agrow_tree(
                problem, self._engine, self._judge, settings=self._settings, seed=self._seed
            )
        except DataError as err:
            return str(err)
        self._log.append(tree.to_dict())
        return tree


async def _rewritten(
    pairs: Sequence[PairedThoughts], rewriter: Engine, seed: int, concurrency: int
) -> tuple[list[PairedThoughts], tuple[int, int]]:
    """The pairs with rewrites where these kept everything, and how many were kept and refused."""

    async def one(pair: PairedThoughts) -> tuple[PairedThoughts, bool]:
        text, check = await arewrite(pair.long, rewriter, seed=seed)
        return replace(pair, text=text), bool(check)

    done = await gather(one, pairs, concurrency=concurrency)
    kept = sum(is_kept for _, is_kept in done)
    return [pair for pair, _ in done], (kept, len(done) - kept)


def _written(
    folder: Path, pairs: Sequence[PairedThoughts], engine: Engine
) -> tuple[dict[str, int], dict[str, int]]:
    """Write the rows of every arm; how many there are, and how many tokens their answers have."""

    def tokens_of(text: str) -> int:
        return engine.count_tokens((Message("assistant", text),))

    arms: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for pair in pairs:
        for arm, row in paired_rows(pair).items():
            arms[arm].append(row)
    arms["token-matched"] = list(token_matched(pairs, tokens_of))
    tokens = {}
    for arm, rows in arms.items():
        for row in rows:
            row["meta"]["tokens"] = tokens_of(row["messages"][-1]["content"])
        tokens[arm] = sum(row["meta"]["tokens"] for row in rows)
        replace_rows(folder / f"{arm}.jsonl", rows)
    preferences = list(preference_rows(pair.tree for pair in pairs))
    replace_rows(folder / "preferences.jsonl", preferences)
    return {
        **{arm: len(rows) for arm, rows in arms.items()},
        "preferences": len(preferences),
    }, tokens
