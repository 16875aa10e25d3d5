"""A suite as files: items, a task, candidates, labels, terms, annotation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hanol.errors import DataError
from hanol.evaluation.building._build import Suite, evidence
from hanol.evaluation.building._candidates import candidate_rows, label_rows
from hanol.evaluation.building._label_studio import write_label_studio
from hanol.evaluation.judging._rubric import Rubric
from hanol.files import whole_folder
from hanol.rows import read_rows, replace_rows


def write_suite(
    suite: Suite, folder: str | Path, *, seed: int = 0, outputs: str | Path | None = None
) -> list[Path]:
    """Write a suite as a folder.

    It holds `suite.jsonl` (items with their evidence), `task.jsonl` (for `hanol eval run`),
    `candidates.jsonl` (of known quality, for `hanol eval judge`), `labels.jsonl` (the same, for
    `hanol eval meta --human`), `terms.jsonl` (a glossary) and `annotate/` (for Label Studio, a
    folder of each class with its own levels).

    Args:
        suite: The suite.
        folder: Folder to write; one that is there is replaced.
        seed: Seed of the damages.
        outputs: Outputs of systems to annotate, as `hanol eval run` writes them for `task.jsonl`;
            None takes the candidates of known quality.

    Returns:
        The files.

    Raises:
        DataError: An output is of no item of the suite.
        WriteError: The folder cannot be written; then nothing is left.
    """
    candidates = list(candidate_rows(suite, seed=seed))
    annotated = candidates if outputs is None else list(_annotated(suite, outputs))
    folder = Path(folder)
    with whole_folder(folder) as part:
        replace_rows(part / "suite.jsonl", (one.model_dump(mode="json") for one in suite.items))
        replace_rows(part / "task.jsonl", suite.task_rows())
        replace_rows(part / "candidates.jsonl", candidates)
        replace_rows(part / "labels.jsonl", label_rows(iter(candidates)))
        if suite.terms:
            replace_rows(part / "terms.jsonl", suite.glossary_rows())
        rubric = Rubric.load("diting")
        for name in dict.fromkeys(one["task"] for one in annotated):
            write_label_studio(
                (one for one in annotated if one["task"] == name),
                part / "annotate" / name,
                rubric=rubric.for_task(name),
            )
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _annotated(suite: Suite, outputs: str | Path) -> Iterator[dict[str, Any]]:
    """Outputs of systems with the class and the evidence of their items."""
    items = {item.id: item for item in suite.items}
    for line, row in read_rows(outputs):
        item = items.get(str(row.get("id", "")).partition("#")[0])
        if item is None or not isinstance(row.get("candidate"), str):
            raise DataError(
                f"{str(outputs)!r}, line {line}: {row.get('id')!r} is no output for an item of "
                f"the suite {suite.name}."
            )
        yield {
            **row,
            "task": item.phenomenon,
            "source": item.source,
            "context": item.context,
            "reference": item.reference,
            "meta": {"evidence": evidence(item)},
        }
