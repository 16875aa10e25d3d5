"""Growing a reasoning tree: a model writes steps, a judge prunes them.

Source: arXiv 2410.18982, section 6.5. Wrong steps stay in the tree, and some are followed a little
further by the model itself, so that a wrong turn has a body.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import count

from hanol.engines import Engine
from hanol.runs import gather, synchronous
from hanol.scoring import last_answer, parse_verifier
from hanol.synthesis.journeys._judge import JudgedStep, StepJudge, VerifierJudge
from hanol.synthesis.journeys._tree import ReasoningNode, ReasoningTree
from hanol.synthesis.journeys._write import StepWriter, TreeSettings, states_answer
from hanol.worlds import MathProblem


async def agrow_tree(
    problem: MathProblem,
    engine: Engine,
    judge: StepJudge | None = None,
    *,
    settings: TreeSettings | None = None,
    seed: int = 0,
) -> ReasoningTree:
    """Let a model try steps at a problem, level by level, and a judge prune them.

    Every call has a seed that follows from the problem, the path and `seed`: the same model gives
    the same tree, and one that is grown behind a `CachedEngine` goes on where it was killed.

    Args:
        problem: With a verifier, which judges final answers.
        engine: Writes the steps, one a line; it has to be able to continue a `prefill`.
        judge: Judges each step; None is `VerifierJudge`.
        settings: None takes the defaults.
        seed: Seed of the steps.

    Raises:
        CapabilityError: The engine cannot continue a `prefill`.
        DataError: The judge gave neither a verdict nor a score, or an unknown one.
        EngineError: The model did not answer.
    """
    grower = _Grower(problem, engine, judge or VerifierJudge(), settings or TreeSettings(), seed)
    return await grower.grow()


grow_tree = synchronous(agrow_tree)


class _Grower:
    """The nodes so far, and the calls that make more."""

    def __init__(
        self,
        problem: MathProblem,
        engine: Engine,
        judge: StepJudge,
        settings: TreeSettings,
        seed: int,
    ) -> None:
        self._problem, self._engine, self._judge = problem, engine, judge
        self._settings, self._seed = settings, seed
        self._writer = StepWriter(problem, engine, settings, seed)
        self._verify = parse_verifier(problem.verifier)
        self._numbers = count(1)
        self._nodes: list[ReasoningNode] = []

    async def grow(self) -> ReasoningTree:
        frontier: list[list[ReasoningNode]] = [[]]  # paths
        for _ in range(self._settings.depth):
            levels = await gather(self._branch, frontier, concurrency=len(frontier))
            paths = []
            for path, children in zip(frontier, levels, strict=True):
                if path and not children:
                    self._ended(path)
                paths += [[*path, node] for node in self._added(path, children)]
            wrong = [path for path in paths if path[-1].verdict == "incorrect"]
            await self._follow(wrong)
            open_ = [p for p in paths if p[-1].verdict == "correct" and not p[-1].is_leaf]
            # Sorting keeps the order of the draws where a judge gives no scores.
            frontier = sorted(open_, key=lambda path: -(path[-1].score or 0.0))
            frontier = frontier[: self._settings.keep]
            if not frontier:
                break
        provenance = {
            "source": self._problem.source,
            "level": self._problem.level,
            "model": self._engine.name,
            "judge": self._judge.name,
            "seed": self._seed,
            **asdict(self._settings),
        }
        problem = self._problem
        return ReasoningTree(
            problem.problem, problem.answer, tuple(self._nodes), problem.id, provenance
        )

    async def _follow(self, wrong: list[list[ReasoningNode]]) -> None:
        """Give the first wrong step of each parent a body."""
        chosen = {path[-1].parent: path for path in reversed(wrong) if not path[-1].is_leaf}
        paths = list(chosen.values())[::-1]
        for _ in range(self._settings.follow):
            if not paths:
                return
            written = await gather(self._one_more, paths, concurrency=len(paths))
            longer = []
            for path, step in zip(paths, written, strict=True):
                if step is None:
                    continue
                # What follows from a wrong step is wrong for the same reason.
                found = JudgedStep("incorrect", path[-1].score, path[-1].reason)
                [node] = self._added(path, [(step, found)])
                if not node.is_leaf:
                    longer.append([*path, node])
            paths = longer

    def _ended(self, path: Sequence[ReasoningNode]) -> None:
        """The model has nothing to write behind a step: it was the last one, whatever it says."""
        text = "\n".join(node.step for node in path)
        leaf = replace(
            path[-1],
            is_leaf=True,
            answer=last_answer(text),
            correct=self._verify(self._problem.problem, text, self._problem),
        )
        self._nodes[self._nodes.index(path[-1])] = leaf

    async def _branch(self, path: Sequence[ReasoningNode]) -> list[tuple[str, JudgedStep]]:
        before = [node.step for node in path]
        steps = await self._writer.write(before, self._settings.width)
        judged = [await self._judge.judge(self._problem, [*before, step]) for step in steps]
        return list(zip(steps, judged, strict=True))

    async def _one_more(self, path: Sequence[ReasoningNode]) -> str | None:
        return next(iter(await self._writer.write([node.step for node in path], 1)), None)

    def _added(
        self, path: Sequence[ReasoningNode], children: Sequence[tuple[str, JudgedStep]]
    ) -> list[ReasoningNode]:
        made = []
        for step, judged in children:
            is_leaf = states_answer(step)
            text = "\n".join([*(node.step for node in path), step])
            # A step with a low score but no verdict is as good as the others of its level.
            node = ReasoningNode(
                id=next(self._numbers),
                parent=path[-1].id if path else 0,
                step=step,
                verdict=judged.verdict or "correct",
                score=judged.score,
                reason=judged.reason,
                is_leaf=is_leaf,
                answer=last_answer(step) if is_leaf else None,
                correct=self._verify(self._problem.problem, text, self._problem)
                if is_leaf
                else None,
            )
            made.append(node)
        self._nodes += made
        return made
