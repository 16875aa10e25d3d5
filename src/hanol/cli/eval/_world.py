"""`hanol eval world`, which is `hanol research eval` too: a model on a generated world."""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from hanol.cli._command import Result, command, option
from hanol.cli._options import (
    HOPS,
    AgentSamplingOptions,
    ConcurrencyOption,
    ModelOptions,
    ModeOption,
    Split,
)
from hanol.cli._progress import interruptible, progress
from hanol.errors import EngineError

if TYPE_CHECKING:
    from hanol.agent_training import Examination
    from hanol.rl import Rollout

_TURN = 512  # tokens of a turn about real pages; those about the encyclopedia are shorter


def examination(name: Any, example: str) -> Callable[..., None]:
    """The command that asks a model about a world, with the world as an argument or an option."""

    def world(
        model: ModelOptions,
        name: Literal["encyclopedia", "factbook", "factbook:leads", "factbook:bare"] = name,
        world_seed: int = option(12345, "Seed of the questions, and of a generated world."),
        num_questions: int = option(200, "Number of questions of each kind.", min=1),
        hops: Sequence[int] = HOPS,
        split: Split = option(
            "test", "Split of names or pages that the questions are about; no two share any."
        ),
        mode: ModeOption = "react",
        max_calls: int = option(16, "Maximum number of model calls per question.", min=1),
        concurrency: ConcurrencyOption = 64,
        num_distractors: int = option(
            1,
            "Sentences per page of the encyclopedia that state no fact; 7 make about 120 words.",
            min=0,
        ),
        sampling: AgentSamplingOptions = AgentSamplingOptions(),
    ) -> Result:
        """Score a research agent on a generated encyclopedia or the World Factbook.

        Prints the accuracy by number of hops, format errors and skills. The factbook has leads of
        Wikipedia where their package is installed; factbook:leads needs them, factbook:bare leaves
        them out. `--model expert` is a scripted agent that knows the answers.
        """
        from hanol.agent_training import EXAM_SAMPLING, examine
        from hanol.engines import open_engine
        from hanol.research import GREEDY
        from hanol.runs import synchronous
        from hanol.worlds import Factbook, open_world

        drawn = sampling.sampling(GREEDY)
        drawn = EXAM_SAMPLING if drawn == GREEDY else drawn
        is_real = name != "encyclopedia"
        if is_real and sampling.max_tokens is None:
            drawn = replace(drawn, max_tokens=_TURN)
        # Fleets and endpoints have limits of their own; a checkpoint in this process batches.
        elsewhere = model.model.partition(":")[0] in ("http", "https", "ray", "scripted")
        batched = {} if elsewhere else {"max_batch": concurrency}
        made = open_world(name, split=split) if is_real else None
        is_expert = model.model == "expert"
        engine = None if is_expert else open_engine(model.model, **model.given, **batched)
        started = time.perf_counter()
        with interruptible("nothing was kept"), progress("questions") as report, ExitStack() as end:
            if engine is not None:
                end.callback(synchronous(engine.aclose))
            ended, right, problem = 0, 0, ""

            def on_rollout(rollout: "Rollout") -> None:
                nonlocal ended, right, problem
                ended, right = ended + 1, right + (rollout.reward == 1.0)
                problem = rollout.problem or problem
                share = f"{100 * right / ended:.0f} % right"
                report(ended, num_questions * (len(hops) + (made is None)), share)

            settings: dict[str, Any] = {
                "seed": world_seed,
                "split": split,
                "sampling_seed": sampling.seed,
                "num_questions": num_questions,
                "mode": mode,
                "max_calls": max_calls,
                "num_distractors": num_distractors,
            }
            result = examine(
                engine,
                world=made,
                hops=hops,
                sampling=drawn,
                concurrency=concurrency,
                constrained=is_real,
                on_rollout=on_rollout,
                **settings,
            )
        if result.broken == result.questions:  # an accuracy of 0 would be a lie
            raise EngineError(f"None of {result.questions} questions could be asked: {problem}")
        settings |= {
            "world": name,
            "model": model.model,
            **{key: getattr(drawn, key) for key in ("temperature", "top_p", "top_k", "max_tokens")},
            "own_sampling": sampling.own_sampling,
            "seconds": round(time.perf_counter() - started, 2),
        }
        about = "an unseen encyclopedia"
        if isinstance(made, Factbook):
            del settings["num_distractors"]
            settings |= {"leads": made.num_leads}
            about = f"the factbook and {made.num_leads:,} leads of Wikipedia"
        shown = _examined(result, settings, about)
        return Result({**result.model_dump(), "settings": settings}, shown)

    world.__doc__ = f"{inspect.cleandoc(world.__doc__ or '')}\n\nExample: hanol {example}"
    return command(world)


def _examined(result: "Examination", settings: dict[str, Any], about: str) -> Iterator[str]:
    """The accuracy with its intervals, then the skills."""
    from hanol.agent_training import kind_label

    yield (
        f"{settings['model']}: {result.questions} questions about {about}, seed "
        f"{settings['seed']}, {settings['seconds']:.1f} s"
    )
    yield "\nright answers, with 95 % intervals"
    for kind, value in result.accuracy.items():
        low, high = (100 * bound for bound in result.intervals[kind])
        yield f"  {kind_label(kind):16}{100 * value:6.1f} %   [{low:.1f}, {high:.1f}]"
    yield "\nskills, in the order in which they are learned"
    for skill, rate in result.skills.items():
        yield f"  {skill:16}" + ("     -" if rate is None else f"{100 * rate:6.1f} %")
    yield f"\n  {'format errors':16}{100 * result.format_errors:6.1f} % of the turns"
    yield f"  {'cited':16}{100 * result.cited:6.1f} % of the right answers"
    if result.broken:
        yield f"  {'broken':16}{result.broken:4} questions, left out"
