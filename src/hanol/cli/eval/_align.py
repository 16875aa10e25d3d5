"""`hanol eval align`: wording and examples of a rubric, chosen on labels."""

from contextlib import ExitStack
from pathlib import Path

from hanol.cli._command import Result, command, option
from hanol.cli._options import ConcurrencyOption, DryRunOption, SeedOption
from hanol.errors import ConfigError


@command
def align(
    dev: Path = option(..., "Labels to choose on, as for `hanol eval meta`."),
    test: Path = option(..., "Held-out labels to report on; none of them is in --dev."),
    rubric: list[str] = option(
        ...,
        "Wordings of one rubric: bundled names or YAML files; repeatable. The first is the base.",
    ),
    judge: str = option(..., "Model that judges: a checkpoint or an endpoint, as for --model."),
    num_examples: int = option(3, "Examples that a judge is shown; 0 tries wordings alone.", min=0),
    num_sets: int = option(2, "Random sets of examples that are tried.", min=1),
    concurrency: ConcurrencyOption = 16,
    seed: SeedOption = 0,
    output: Path | None = option(None, "YAML file for the chosen rubric. Omitted: none."),
    dry_run: DryRunOption = False,
) -> Result:
    """Find the wording and examples of a rubric that agree best with people.

    Chooses on the labels of --dev and reports on those of --test; refuses labels that overlap.

    Example: hanol eval align --dev dev.jsonl --test test.jsonl --rubric summary --judge smollm2
    """
    import yaml

    from hanol import evaluation
    from hanol.engines import open_engine
    from hanol.files import replace_text
    from hanol.runs import synchronous

    if output is not None and output.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"`--output` is {str(output)!r}, but a rubric is a .yaml file.")
    labels = evaluation.read_labels(dev), evaluation.read_labels(test)
    wordings = [evaluation.Rubric.load(name) for name in rubric]
    if dry_run:
        calls = evaluation.num_alignment_calls(
            *labels, wordings, num_examples=num_examples, num_sets=num_sets
        )
        return Result({"calls": calls}, f"{calls} calls of {judge}, more where replies are invalid")
    with ExitStack() as at_end:
        engine = open_engine(judge)
        at_end.callback(synchronous(engine.aclose))
        found = evaluation.align_judge(
            *labels,
            wordings,
            engine,
            num_examples=num_examples,
            num_sets=num_sets,
            seed=seed,
            concurrency=concurrency,
        )
    if output is not None:
        plain = found.rubric.model_dump(mode="json", exclude_defaults=True)
        replace_text(output, yaml.safe_dump(plain, allow_unicode=True, sort_keys=False))
    return Result(found, found.lines())
