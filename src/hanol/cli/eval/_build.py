"""`hanol eval build`: a benchmark of translation from parallel text."""

from pathlib import Path
from typing import Any

import typer

from hanol.cli._command import Result, argument, command, option
from hanol.cli._options import DryRunOption, SeedOption


@command
def build(
    text: str = argument(
        "Parallel text: a file with a column for each language, sample, libreoffice-help, "
        "catalogue:DOMAIN or hsk.",
        metavar="TEXT",
    ),
    languages: str = option(..., "Direction, such as zh-en, ko-en or ko-zh."),
    output: Path = option(..., "Folder to write; it must be new."),
    per_class: int = option(50, "Maximum number of items of each class.", min=1),
    classes: str | None = option(
        None,
        "Classes to draw, separated by commas: idiom, lexical, terminology, tense, zero, security. "
        "Omitted: all.",
    ),
    glossary: Path | None = option(
        None, "Glossary with `source` and `preferred`. Omitted: terms are mined from the text."
    ),
    words: Path | None = option(
        None, "YAML file of word lists that extend the package's own. Omitted: none."
    ),
    outputs: Path | None = option(
        None,
        "Outputs of systems for people to annotate, as `hanol eval run` writes them. Omitted: the "
        "candidates of known quality.",
    ),
    root: Path = option(Path("/"), "Folder that Debian's packages are installed or unpacked in."),
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
) -> Result:
    """Build a translation benchmark from parallel text: items by what is hard in them.

    Writes the items with evidence, a task for `hanol eval run`, candidates of known quality for
    `hanol eval judge` and `hanol eval meta`, a glossary, and files for Label Studio.

    Example: hanol eval build sample --languages zh-en --output suite
    """
    from hanol import evaluation
    from hanol.files import check_new

    source, dash, target = languages.partition("-")
    if not (source and dash and target):
        raise typer.BadParameter(f"{languages!r}: give two languages, such as zh-en.")
    if not dry_run:
        check_new(output)
    terms = None
    if glossary is not None:
        terms = {one.source: one.preferred for one in evaluation.read_glossary(glossary)}
    options: dict[str, Any] = {"words": words, "terms": terms, "seed": seed}
    if classes is not None:
        options["classes"] = [name.strip() for name in classes.split(",")]
    suite = evaluation.build_suite(
        evaluation.read_parallel(text, root=root), source, target, per_class=per_class, **options
    )
    plain = {
        "suite": suite.name,
        "items": len(suite.items),
        "terms": len(suite.terms),
        "found": dict(suite.found),
        "left_out": dict(suite.dropped),
    }
    lines = [*evaluation.suite_lines(suite)]
    if not dry_run:
        files = evaluation.write_suite(suite, output, seed=seed, outputs=outputs)
        plain |= {"files": [str(path) for path in files]}
        lines.append(f"written to {output}: {len(files)} files")
    return Result(plain, lines)
