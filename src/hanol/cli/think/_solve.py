"""`hanol think solve`: one problem, by one or more strategies."""

from pathlib import Path
from typing import TYPE_CHECKING

from hanol.cli._command import Result, command, option
from hanol.cli._console import one_line
from hanol.cli._options import LoadOptions, PromptOption
from hanol.cli._progress import interruptible
from hanol.cli.generate import read_prompt
from hanol.cli.think._options import (
    SOLUTIONS,
    LogOption,
    ModelArgument,
    SettingOption,
    SolutionOptions,
    VerifierOption,
    opened,
    values_of,
)
from hanol.files import replace_text

if TYPE_CHECKING:
    from hanol.test_time import Thought


@command
def solve(
    model: ModelArgument,
    loading: LoadOptions,
    prompt: PromptOption = None,
    strategy: list[str] = option(
        ["auto"], "Strategy, repeatable; see hanol think strategies.", "--strategy"
    ),
    budget: int = option(
        16, "Complete answers' worth of generated tokens, at most (of --max-tokens each).", min=1
    ),
    verifier: VerifierOption = None,
    setting: SettingOption = None,
    policy: Path | None = option(
        None, "Policy for the strategy auto, from hanol think fit. Omitted: adaptive vote."
    ),
    html: Path | None = option(None, "HTML page of the search trees to write. Omitted: none."),
    log: LogOption = None,
    solutions: SolutionOptions = SOLUTIONS,
) -> Result:
    """Answer a problem with more than one sample.

    Prints the answer, the solution that gives it, and what it cost. Several strategies are run one
    after the other, and stand side by side on the page.

    Example: hanol think solve smollm2 -p "What is 7 + 5 + 9?" --strategy majority --budget 16
    """
    from hanol.runs import synchronous
    from hanol.test_time import PolicyTable, athink, render_page

    problem = read_prompt(prompt)
    settings = solutions.settings
    table = None if policy is None else PolicyTable.load(policy)

    async def answered() -> "list[Thought]":
        return [
            await athink(
                problem, engine, scorer, strategy=name, budget=budget,
                options=values_of(setting) if name != "auto" else None, policy=table,
                settings=settings,
            )
            for name in strategy
        ]  # fmt: skip

    with interruptible(), opened(model, loading, log, verifier) as (engine, scorer):
        thoughts = synchronous(answered)()
    if html is not None:
        replace_text(html, render_page(thoughts))
    plain = [thought.to_dict() for thought in thoughts]
    return Result(
        plain[0] if len(plain) == 1 else {"thoughts": plain},
        [line for thought in thoughts for line in _lines(thought, len(thoughts) > 1)],
    )


def _lines(thought: "Thought", with_name: bool) -> list[str]:
    spent = thought.ledger
    lines = [f"{thought.strategy}:"] if with_name else []
    if thought.note:
        lines.append(one_line(thought.note))
    lines += [thought.text.strip()] if thought.text.strip() else []
    said = "none that could be read" if thought.answer is None else one_line(str(thought.answer))
    limit = "" if thought.limit is None else f" of {thought.limit:,}"
    lines.append(f"answer: {said}")
    lines.append(
        f"{spent.generated_tokens:,}{limit} tokens generated, {spent.prompt_tokens:,} of prompts "
        f"({spent.cached_tokens:,} from the cache), {spent.verifier_tokens:,} verified; "
        f"{spent.flops:.3g} FLOPs; {spent.seconds:.1f} s"
    )
    return lines
