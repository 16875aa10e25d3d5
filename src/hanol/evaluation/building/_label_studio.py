"""Files for people who annotate: tasks and the labelling page of Label Studio.

Its exports are read by `read_label_studio`, which drops drafts and everything about people.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from hanol.errors import DataError
from hanol.evaluation.judging._rubric import Criterion, Rubric
from hanol.files import replace_json, replace_text

_PAGE = """\
<View>
  <Text name="instruction" value="$instruction"/>
  <Header value="Context"/><Text name="context" value="$context"/>
  <Header value="Source"/><Text name="source" value="$source"/>
  <Header value="Look at"/><Text name="evidence" value="$evidence"/>
  <Header value="Candidate"/><Text name="model_output" value="$model_output"/>
{criteria}
  <TextArea name="comments" toName="model_output" rows="2" placeholder="Why (optional)"/>
</View>
"""
_CRITERION = """\
  <Header value={title}/>
  <Choices name={name} toName="model_output" choice="single" required="true">
{choices}
  </Choices>"""


def write_label_studio(
    rows: Iterable[Mapping[str, Any]],
    folder: str | Path,
    *,
    rubric: Rubric,
    blind: bool = True,
) -> list[Path]:
    """Write items for annotation: `tasks.json` to import, and `labels.xml`, the page.

    Args:
        rows: Items as `Item` has them.
        folder: Where both files go.
        rubric: The criteria, with the text of each level.
        blind: Leave out the system and the reference's levels, so that annotators do not see them;
            the ids tell later which is which.

    Returns:
        The files.

    Raises:
        DataError: There are no rows.
        WriteError: A file cannot be written.
    """
    tasks = [_task(number, row, blind) for number, row in enumerate(rows, start=1)]
    if not tasks:
        raise DataError("There are no items to annotate.")
    folder = Path(folder)
    page = _PAGE.format(criteria="\n".join(map(_criterion, rubric.criteria)))
    replace_json(folder / "tasks.json", tasks)
    replace_text(folder / "labels.xml", page)
    return [folder / "tasks.json", folder / "labels.xml"]


def _task(number: int, row: Mapping[str, Any], blind: bool) -> dict[str, Any]:
    found: Sequence[Mapping[str, Any]] = row.get("meta", {}).get("evidence", ())
    data = {
        "item": row["id"],
        "task": row.get("task"),
        # Where a reader of the official files looks for the source.
        "instruction": f"Judge this translation. 文本：{row.get('source') or ''}",
        "context": row.get("context") or "",
        "source": row.get("source") or "",
        "evidence": "; ".join(f"{one['text']} ({one['why']})" for one in found),
        "model_output": row["candidate"],
        "ground_truth": row.get("reference"),
    }
    if not blind:
        data["model"] = row.get("system")
    return {"id": number, "data": data}


def _criterion(criterion: Criterion) -> str:
    # A key may stand for a range of scores, of which people choose one.
    texts = {str(key): text for key, text in criterion.levels.items()}
    choices = "\n".join(
        f"    <Choice value={quoteattr(str(score))} hint={quoteattr(texts.get(str(score), ''))}/>"
        for score in sorted(criterion.scale, reverse=True)
    )
    title = criterion.name or criterion.id
    return _CRITERION.format(title=quoteattr(title), name=quoteattr(criterion.id), choices=choices)
