"""What the claims about journeys stand on: small models of countdown, and trees that they grow.

Everything that is made is kept (`claims.kept`): a claim that was interrupted goes on from there,
and claims share what they train.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from claims import kept
from claims.figures import Figures
from claims.kept import read_lines
from claims.recipes import AT_ONCE, SMALLEST, opened, trained
from hanol.engines import Choice, Completion, Engine, Request, ScriptedEngine
from hanol.rows import replace_rows
from hanol.runs import synchronous
from hanol.sampling import Sampling
from hanol.synthesis import VerifierJudge, asynthesize_journeys, score_thoughts
from hanol.test_time import ThinkSettings, sample_answers
from hanol.worlds import MathProblem, open_problems

log = logging.getLogger(__name__)

PAPER = "arXiv 2410.18982"
LARGER = (
    "`hanol synth journeys FILE -m MODEL --judge prm:PRM --num-trees 327` and `hanol train "
    "recipes/journey/journey.yaml --set model=MODEL` with a model of 7 B parameters on MATH; "
    "nobody has run that here"
)
WORLD = "countdown:numbers=3-4"
TREES = 3_270  # ten times as many as the paper has
PROBLEMS = 500  # held out, of every seed
SIZES = {"small": "world-small", "medium": "world-medium", "teacher": "world-large"}
SCALE = (
    "Models trained from scratch on 4 M tokens of countdown with 3 and 4 numbers "
    "(`recipes/think/countdown.yaml`: 1 M parameters, and 0.27 M), which grow the trees from which "
    f"both kinds of rows are walked; three epochs of fine-tuning. {PROBLEMS} unseen problems a "
    "seed, answered greedily; intervals from resampling problems"
)

place = partial(kept.place, "journey")
_TOKENS = 256  # of an answer


def base(seed: int, quick: bool, size: str = "medium") -> Path:
    """A model that writes right ways only."""
    sizes = {**SMALLEST, "data.num_problems": 300} if quick else {}
    preset = "world-small" if quick else SIZES[size]
    settings = {"seed": seed, "model.preset": preset, **sizes}
    return trained(place(seed, quick, f"base-{size}"), "think/countdown.yaml", **settings)


def grown(seed: int, quick: bool, *, trees: int = TREES, by: str = "medium") -> Path:
    """Folder of the rows of trees that a model grows."""
    folder = place(seed, quick, f"trees-{by}-{trees}")
    if not (folder / "preferences.jsonl").exists():
        log.info("%s: growing", folder)
        tried = open_problems(WORLD, count=20 * trees, seed=seed)
        # A model that has learned nothing would find no tree.
        source: AbstractContextManager[Engine] = (
            nullcontext(_guide(tried)) if quick else opened(base(seed, quick, by))
        )
        with source as engine:
            report = synchronous(asynthesize_journeys)(
                tried, engine, folder, num_trees=trees, judge=VerifierJudge(), varied=False,
                seed=seed, concurrency=24,
            )  # fmt: skip
        log.info("%s: %s", folder, report)
    return folder


def _guide(tried: Sequence[MathProblem]) -> Engine:
    """Writes the right step, or a wrong one, by the seed."""
    known = {one.problem: one.steps for one in tried}

    def step(request: Request) -> Completion:
        steps = known[request.messages[-1].text]
        done = sum(line in steps for line in request.prefill.split("\n"))
        right, seed = steps[min(done, len(steps) - 1)], request.sampling.seed or 0
        texts = [right if (seed + i) % 3 else "1 + 1 = 3" for i in range(request.n)]
        return Completion(tuple(map(Choice, texts)))

    return ScriptedEngine(step)


def student(
    seed: int, quick: bool, rows: Path, *, name: str, size: str = "medium", **changed: object
) -> Path:
    """A model that learned rows on top of the right ways."""
    few = {"batch_size": 4, "epochs": 1, "data.held_out": 0} if quick else {}
    return trained(
        place(seed, quick, name), "journey/journey.yaml", model=base(seed, quick, size),
        seed=seed, **{"data.path": rows, **few, **changed},
    )  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """How a model did on the held-out problems.

    Attributes:
        right: 1.0 for each right answer, in the order of the problems.
        tokens: Of an answer.
        recovery: Share of right ones among answers that return at least once; -1 without any.
        truncated: Share that the limit cut.
    """

    right: list[float]
    tokens: float
    recovery: float
    truncated: float


def problems(seed: int, quick: bool) -> list[MathProblem]:
    """Problems that no model has seen, other ones for every seed."""
    return open_problems(WORLD, count=8 if quick else PROBLEMS, seed=seed, split="test")


def answered(seed: int, quick: bool, model: Path, name: str) -> Answered:
    """Ask a model all held-out problems once, greedily; what the file has is read back."""
    file = place(seed, quick, f"answers-{name}.jsonl")
    if not file.exists():
        log.info("%s", file)
        drawn = ThinkSettings(Sampling(temperature=0.0, max_tokens=_TOKENS), concurrency=AT_ONCE)
        asked = problems(seed, quick)
        with opened(model) as engine:
            rows = sample_answers(engine, asked, samples=1, settings=drawn)
            texts = [row["answers"][0] if row["answers"] else "" for row in rows]
            tokens = [len(engine.encode(x, begins=False)) if x else _TOKENS for x in texts]
        cut = [not text for text in texts]
        scores = score_thoughts(asked, texts, tokens=tokens, truncated=cut)
        right = [float(any(row["right"])) for row in rows]
        recovery = -1.0 if scores.recovery is None else scores.recovery
        found = Answered(right, scores.tokens, recovery, scores.truncated)
        replace_rows(file, [asdict(found)])
    [line] = read_lines(file)
    return Answered(**line)


def add_answers(figures: Figures, name: str, found: Answered) -> None:
    """Note accuracy, length, recovery and truncation."""
    figures.add(f"{name}, %", 100 * sum(found.right) / len(found.right))
    figures.add(f"{name}, tokens", found.tokens)
    figures.add(f"{name}, cut off, %", 100 * found.truncated)
    if found.recovery >= 0:
        figures.add(f"{name}, right of those that return, %", 100 * found.recovery)
