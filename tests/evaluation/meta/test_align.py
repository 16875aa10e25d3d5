"""Aligning a judge: chosen on development labels, reported on others, never on the same."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hanol import evaluation

# Private: the application is no part of the Python interface.
from hanol.cli import app
from hanol.engines import Request, ScriptedEngine
from hanol.errors import ConfigError, DataError


def rubric(name: str, about: str) -> evaluation.Rubric:
    return evaluation.Rubric(
        id=name,
        about=about,
        criteria=[{"id": "quality", "levels": {2: "good", 1: "fair", 0: "bad"}}],
    )


def items(first: int, count: int) -> list[evaluation.LabelledItem]:
    return [
        evaluation.LabelledItem(
            id=str(n), candidate=f"text {n} of quality {n % 3}", group=str(n),
            ratings={"A": {"quality": float(n % 3)}},
        )
        for n in range(first, first + count)
    ]  # fmt: skip


class Reader(ScriptedEngine):
    """A judge that reads quality only where the rubric says how, or shows an example."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        super().__init__(self.reply)

    def reply(self, request: Request) -> str:
        text = "\n".join(message.text for message in request.messages)
        self.prompts.append(text)
        found = re.findall(r"text (\d+) of quality (\d)", text)
        number, quality = found[-1]
        knows = "look closely" in text or len(found) > 1
        return json.dumps({"quality": int(quality) if knows else int(number) % 2})


PLAIN, CLOSE = rubric("plain", "Judge the text."), rubric("close", "Judge it: look closely.")


def test_the_better_wording_is_chosen_and_reported_on_held_out_labels() -> None:
    judge = Reader()
    found = evaluation.align_judge(
        items(0, 12), items(100, 9), [PLAIN, CLOSE], judge, num_examples=0
    )
    assert [one.wording for one in found.tried] == ["close", "plain"]
    assert found.rubric.id == "close"
    assert found.tried[0].dev == pytest.approx(1)
    assert found.chosen == pytest.approx(1)
    assert found.base < 0.6
    assert found.test_items == 9
    assert found.p < 0.2
    assert found.calls == len(judge.prompts) == 2 * 12 + 2 * 9
    assert found.calls == evaluation.num_alignment_calls(
        items(0, 12), items(100, 9), [PLAIN, CLOSE], num_examples=0
    )
    assert "held-out labels (9 outputs)" in "\n".join(found.lines())


def test_examples_are_shown_and_never_judged_by_the_rubric_that_shows_them() -> None:
    judge = Reader()
    found = evaluation.align_judge(
        items(0, 12), items(100, 6), [PLAIN], judge, num_examples=3, num_sets=1
    )
    [best, plain] = found.tried
    assert best.dev == pytest.approx(1)
    assert plain.dev < 0.6
    assert len(best.examples) == 3
    assert {int(name) % 3 for name in best.examples} == {0, 1, 2}
    assert best.scored == 9
    shown = found.rubric.criteria[0].examples
    assert {one.score for one in shown} == {0, 1, 2}
    with_examples = [text for text in judge.prompts if text.count("of quality") > 1]
    judged = {re.findall(r"text (\d+) of", text)[-1] for text in with_examples}
    assert judged.isdisjoint(best.examples)


def test_labels_that_overlap_are_refused() -> None:
    with pytest.raises(DataError, match="share the id '5'"):
        evaluation.align_judge(items(0, 6), items(5, 6), [PLAIN], Reader())
    twin = items(0, 1)[0].model_copy(update={"id": "other", "candidate": "TEXT 0  of quality 0"})
    with pytest.raises(DataError, match="share the text of '0' and 'other'"):
        evaluation.align_judge(items(0, 6), [*items(10, 5), twin], [PLAIN], Reader())


def test_wordings_of_other_rubrics_are_refused() -> None:
    other = evaluation.Rubric(
        id="other", criteria=[{"id": "style", "levels": {1: "good", 0: "bad"}}]
    )
    with pytest.raises(ConfigError, match="'other' has other criteria or scales than 'plain'"):
        evaluation.align_judge(items(0, 6), items(10, 6), [PLAIN, other], Reader())
    with pytest.raises(DataError, match="fewer than 3 held-out"):
        evaluation.align_judge(items(0, 6), items(10, 2), [PLAIN], Reader())
    with pytest.raises(ConfigError, match="no rubric"):
        evaluation.align_judge(items(0, 6), items(10, 6), [], Reader())


def test_command_writes_the_chosen_rubric(tmp_path: Path) -> None:
    for name, made in (("dev", items(0, 6)), ("test", items(10, 6))):
        rows = [
            {"id": one.id, "candidate": one.candidate, "human": {"quality": one.human()}}
            for one in made
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for one in (PLAIN, CLOSE):
        text = yaml.safe_dump(one.model_dump(mode="json", exclude_defaults=True))
        (tmp_path / f"{one.id}.yaml").write_text(text)
    (tmp_path / "judge.jsonl").write_text(
        "".join(
            json.dumps({"text": json.dumps({"quality": n}), "match": f"quality {n}"}) + "\n"
            for n in range(3)
        )
    )
    options = ["--dev", tmp_path / "dev.jsonl", "--test", tmp_path / "test.jsonl",
               "--rubric", tmp_path / "plain.yaml", "--rubric", tmp_path / "close.yaml",
               "--judge", f"scripted:{tmp_path / 'judge.jsonl'}", "--num-examples", 0]  # fmt: skip
    chosen = tmp_path / "chosen.yaml"
    done = CliRunner().invoke(
        app, ["eval", "align", *map(str, options), "--output", str(chosen), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["chosen"] == pytest.approx(1)
    assert evaluation.Rubric.load(chosen).id == "plain"
    planned = CliRunner().invoke(app, ["eval", "align", *map(str, options), "--dry-run", "--json"])
    assert json.loads(planned.stdout) == {"calls": 24}
