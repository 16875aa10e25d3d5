"""What the claims about test-time compute stand on: a small model of chains, and its verifiers.

Everything that is made is kept (`claims.kept`): a claim that was interrupted goes on from there,
and claims share what they train and sample.
"""

import logging
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from claims import kept
from claims.figures import Figures
from claims.kept import read_lines
from claims.recipes import SMALLEST, opened, trained
from hanol import models
from hanol.rows import JsonLines, replace_rows
from hanol.sampling import Sampling
from hanol.scoring import last_answer, step_score
from hanol.test_time import (
    PolicyRecord,
    ProcessRewardModel,
    SequentialRevision,
    SweepPlan,
    SweepRow,
    ThinkSettings,
    best_of_k,
    difficulty_bins,
    fit_policy,
    run,
    sample_answers,
    sweep,
)
from hanol.worlds import MathProblem, open_problems

log = logging.getLogger(__name__)

PAPER = "arXiv 2408.03314"
LARGER = (
    "`hanol think compare MODEL --problems FILE --verifier PRM --budgets 1,4,16,64,256` on "
    "MATH-500 with a model of 1 B parameters and more and a public process reward model; nobody "
    "has run that here"
)
WORLD = "chains:level=1-8"
BUDGETS = (1, 4, 16, 64)
STRATEGIES = ("best-of-n", "majority", "beam:width=4", "dvts:width=4", "particles")
LOOKAHEAD = "beam:lookahead=1,width=2"  # half of the answers' tokens look ahead
SAMPLES = 64  # of a pool
PROBLEMS = 150  # of every seed
CHAINS = 16  # answers of a chain of revisions, and of the chains beside each other
BINS = 5
SCALE = (
    "A model of 0.27 M parameters, trained from scratch on 6 M tokens of chains of 1 to 8 "
    "operations modulo 11 (`recipes/think/small.yaml`), a process reward model and an outcome "
    "model trained on its own samples (`recipes/prm/chains.yaml`); "
    f"{PROBLEMS} unseen chains a seed, intervals from resampling problems"
)
REVISED = (
    f"{SCALE}. The small model is fine-tuned on its own wrong answers that a right one follows "
    "(`recipes/prm/revision.yaml`); the outcome model chooses, which has not seen revisions"
)

place = partial(kept.place, "test-time")
_TOKENS = 128  # of an answer; the longest has about 90


def settings(seed: int) -> ThinkSettings:
    """How answers are sampled."""
    return ThinkSettings(
        Sampling(temperature=1.0, top_p=1.0, max_tokens=_TOKENS, seed=seed), separator="\n"
    )


# -- models


def small(seed: int, quick: bool) -> Path:
    """The model that thinks."""
    return _trained(seed, quick, "small", "think/small.yaml", **(SMALLEST if quick else {}))


def large(seed: int, quick: bool) -> Path:
    """Fourteen times its blocks, trained on the same problems."""
    return _trained(seed, quick, "large", "think/large.yaml", **(SMALLEST if quick else {}))


def process_verifier(seed: int, quick: bool) -> ProcessRewardModel:
    """What scores each step."""
    return _verifier(seed, quick, "prm", "steps")


def outcome_verifier(seed: int, quick: bool) -> ProcessRewardModel:
    """What scores whole answers; of steps it has learned nothing."""
    return _verifier(seed, quick, "orm", "outcome")


def _verifier(seed: int, quick: bool, name: str, target: str) -> ProcessRewardModel:
    sizes = {"rollouts.count": 8, "rollouts.samples": 2, "rollouts.rollouts": 2,
             "rollouts.max_tokens": 8, "min_rows": 1, "batch_size": 4, "epochs": 1}  # fmt: skip
    folder = _trained(
        seed, quick, name, "prm/chains.yaml", model=small(seed, quick), target=target,
        **(sizes if quick else {}),
    )  # fmt: skip
    return ProcessRewardModel.from_pretrained(folder)


def reviser(seed: int, quick: bool) -> Path:
    """The small model, fine-tuned on its own wrong answers that a right one follows."""
    if quick:  # a model that has learned nothing has nothing to revise
        return small(seed, quick)
    return _trained(
        seed, quick, "reviser", "prm/revision.yaml", model=small(seed, quick), lora="null",
        save_dtype="float32", micro_batches=1, batch_size=64,
        **{"rollouts.problems": WORLD, "rollouts.count": 600, "rollouts.samples": 32,
           "rollouts.max_tokens": _TOKENS},
    )  # fmt: skip


def _trained(seed: int, quick: bool, name: str, recipe: str, **changed: Any) -> Path:
    return trained(place(seed, quick, name), recipe, seed=seed, **changed)


# -- answers


def problems(seed: int, quick: bool) -> list[MathProblem]:
    """Chains that no model has seen, other ones for every seed."""
    return open_problems(WORLD, count=10 if quick else PROBLEMS, seed=seed, split="test")


@cache
def pool(seed: int, quick: bool) -> list[dict[str, Any]]:
    """Many answers to each problem: `answers`, whether each is `right`, its scores.

    `steps` are the scores of its steps by the process verifier, `outcome` the one score by the
    outcome verifier; `pass_at_1` is the share of right ones of all samples.
    """
    file = place(seed, quick, "pool.jsonl")
    samples = 4 if quick else SAMPLES
    if not file.exists():
        drawn = settings(seed)
        with opened(small(seed, quick)) as engine:
            rows = sample_answers(
                engine, problems(seed, quick), samples=samples, settings=drawn,
                seed=1_000 + seed, file=file.with_name("pool-answers.jsonl"),
            )  # fmt: skip
        replace_rows(
            file, scored(rows, drawn, process_verifier(seed, quick), samples=samples,
                         outcome=outcome_verifier(seed, quick))
        )  # fmt: skip
    return read_lines(file)


def scored(
    rows: list[dict[str, Any]],
    drawn: ThinkSettings,
    process: ProcessRewardModel,
    *,
    samples: int,
    outcome: ProcessRewardModel | None = None,
) -> list[dict[str, Any]]:
    """Rows of `sample_answers` with the scores of their answers; see `pool`."""
    for row in rows:
        asked, texts = row["prompt"], row["answers"]
        row["steps"] = process.score_batch([(asked, drawn.steps(one)) for one in texts])
        row["pass_at_1"] = sum(row["right"]) / samples
        if outcome is not None:
            found = outcome.score_batch([(asked, [one.strip()]) for one in texts])
            row["outcome"] = [score for [score] in found]
    return rows


def curve(rows: list[dict[str, Any]], k: int, kind: str) -> list[float]:
    """How often the weighted choice among k answers of a pool is right, for each problem.

    Args:
        rows: Of a pool.
        k: Answers; fewer where more samples than that were cut off.
        kind: How the scores of steps become one, "outcome", or "majority".
    """
    shares = []
    for row in rows:
        if kind == "outcome":
            scores = row["outcome"]
        elif kind == "majority":
            scores = [1.0] * len(row["right"])
        else:
            scores = [step_score(of, kind) for of in row["steps"]]  # type: ignore[arg-type]
        answers = [last_answer(text) for text in row["answers"]]
        size = min(k, len(answers))
        shares.append(best_of_k(answers, scores, row["right"], size) if size else 0.0)
    return shares


@cache
def swept(seed: int, quick: bool) -> list[SweepRow]:
    """How every strategy did on every problem at every budget."""
    plans = [SweepPlan.parse(name) for name in ("greedy", *STRATEGIES, LOOKAHEAD)]
    budgets = (1, 4) if quick else BUDGETS
    log.info("Seed %d: sweep", seed)
    with opened(small(seed, quick)) as engine:
        return sweep(
            problems(seed, quick), engine, process_verifier(seed, quick), plans, budgets,
            place(seed, quick, "sweep"), settings=settings(seed), resume=True,
        )  # fmt: skip


@cache
def large_once(seed: int, quick: bool) -> dict[str, float]:
    """Whether the larger model's likeliest answer is right, by problem."""
    with opened(large(seed, quick)) as engine:
        rows = sweep(
            problems(seed, quick), engine, None, [SweepPlan("greedy", {})], [1],
            place(seed, quick, "sweep-large"), settings=settings(seed), resume=True,
        )  # fmt: skip
    return {row.question: float(row.right) for row in rows}


def scale_of(seed: int, quick: bool) -> float:
    """Parameters of the larger model over those of the small one."""
    big, little = (models.inspect(str(of(seed, quick))).parameters for of in (large, small))
    return big / little


@cache
def revised(seed: int, quick: bool, chains: int) -> list[dict[str, Any]]:
    """Chains of revisions of each problem: whether each answer is right, and what was chosen.

    A row has `chains`, lists of verdicts in their order, and `right`, that of the choice.
    """
    file = JsonLines(place(seed, quick, f"revised-{chains}.jsonl"))
    rows = {row["id"]: row for row in file.read()}
    missing = [one for one in problems(seed, quick) if one.id not in rows]
    if missing:
        log.info("Seed %d: revisions in %d chains", seed, chains)
        with opened(reviser(seed, quick)) as engine:
            scorer = _Whole(outcome_verifier(seed, quick))
            for problem in missing:
                answers = max(chains, 4) if quick else CHAINS
                thought = run(
                    SequentialRevision(answers, chains=chains, seed=seed), engine, scorer,
                    problem.problem, settings(seed),
                )  # fmt: skip
                found: list[list[bool]] = [[] for _ in range(chains)]
                for number, node in enumerate(thought.nodes[1:]):  # a round has one of each
                    found[number % chains].append(node.answer == problem.answer)
                row = {"id": problem.id, "chains": found, "right": thought.answer == problem.answer}
                file.append(row)
                rows[problem.id] = row
    return [rows[problem.id] for problem in problems(seed, quick)]


class _Whole:
    """An outcome verifier as one of steps: each is worth what the solution up to it is."""

    def __init__(self, outcome: ProcessRewardModel) -> None:
        self._outcome = outcome
        self.parameters = outcome.parameters

    @property
    def tokens_scored(self) -> int:
        return self._outcome.tokens_scored

    def score(self, problem: str, steps: Sequence[str]) -> list[float]:
        [score] = self._outcome.score(problem, ["\n".join(steps)])
        return [score] * len(steps)


# -- what follows


def bins_of(seed: int, quick: bool) -> list[int]:
    """The bin of each problem, 1 the easiest, by samples that nothing else sees."""
    return difficulty_bins([row["pass_at_1"] for row in pool(seed, quick)], BINS)


def right_by(seed: int, quick: bool) -> dict[tuple[str, int], list[float]]:
    """1.0 for each right answer, in the order of the problems, by strategy and budget."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in swept(seed, quick):
        found.setdefault((row.plan, row.budget), []).append(float(row.right))
    return found


def optimal(seed: int, quick: bool, *, predicted: bool = False) -> dict[int, list[float]]:
    """What the best strategy of each bin gives, by budget: one share for each bin.

    Every share is that of strategies which were chosen on the other half of the bin.

    Args:
        seed: Of everything.
        quick: Smallest sizes.
        predicted: Sort by how far four first answers agree, not by the true share of right ones.
    """
    true = {row["id"]: row["pass_at_1"] for row in pool(seed, quick)}
    records = [
        PolicyRecord(row.question, row.difficulty if predicted else true[row.question],
                     row.budget, row.plan, float(row.right))
        for row in swept(seed, quick)
        if row.plan != "greedy"
    ]  # fmt: skip
    table = fit_policy(records, bins=BINS, seed=seed)
    return {
        budget: [entry.accuracy for _, entry in sorted(of.items()) for _ in range(entry.questions)]
        for budget, of in table.entries.items()
    }


def add_levels(figures: Figures, seed: int, quick: bool) -> None:
    """Note how hard the problems are for the model."""
    shares = np.array([row["pass_at_1"] for row in pool(seed, quick)])
    figures.add("pass@1 of the small model, %", 100 * float(shares.mean()))
    for name, share in (("never right", shares == 0), ("always right", shares == 1)):
        figures.add(f"problems {name}, %", 100 * float(share.mean()))
