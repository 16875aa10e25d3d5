"""Rubrics: the bundled ones, hashes, gates, special cases, and what is refused."""

from pathlib import Path

import pytest
import yaml

from hanol.errors import ConfigError, UnknownNameError
from hanol.evaluation import Rubric, bundled_rubrics

TASKS = ["idiom", "lexical", "security", "tense", "terminology", "zero"]


def content(**changes: object) -> dict:
    return {
        "id": "mine",
        "criteria": [
            {"id": "sp", "kind": "specific", "levels": {2: "right", 1: "nearly", 0: "wrong"}},
            {"id": "g_1", "levels": {2: "fluent", 1: "stiff", 0: "broken"}},
        ],
        "gates": [{"when": "sp == 0", "set": {"g_1": 0}}],
    } | changes


def criterion(levels: dict, name: str = "sp") -> list[dict]:
    return [{"id": name, "levels": levels}]


def test_bundled_rubrics_have_their_tasks_and_scales() -> None:
    assert {"diting", "summary", "research-report"} <= set(bundled_rubrics())
    diting = Rubric.load("diting")
    assert sorted(diting.tasks) == TASKS
    assert diting.ids == ("sp", "g_1", "g_2")
    assert {one.scale for one in diting.criteria} == {(0, 1, 2)}
    assert diting.most == 6
    for name in bundled_rubrics():
        assert Rubric.load(name).about, name


@pytest.mark.parametrize("name", ["idiom", "diting:idiom", "diting/idiom"])
def test_one_task_is_a_rubric_with_its_own_words(name: str) -> None:
    idiom = Rubric.load(name)
    assert idiom == Rubric.load("diting").for_task("idiom")
    assert not idiom.tasks
    assert "idiom" in idiom.about
    assert idiom.criteria[0].name == "meaning of the idiom"


def test_hash_changes_with_the_content_alone(tmp_path: Path) -> None:
    plain = tmp_path / "mine.yaml"
    plain.write_text(yaml.safe_dump(content()))
    base = Rubric.load(plain)
    other = tmp_path / "other.yaml"
    other.write_text(
        "# a comment\n" + yaml.safe_dump(content(), sort_keys=False, indent=4, width=30)
    )
    assert Rubric.load(other).hash == base.hash == Rubric(**content()).hash
    reversed_levels = content()
    reversed_levels["criteria"][0]["levels"] = {0: "wrong", 1: "nearly", 2: "right"}
    assert Rubric(**reversed_levels).hash == base.hash
    changed = [content(notes=["be kind"]), content(gates=[]), content(version="2")]
    changed.append(content())
    changed[-1]["criteria"][0]["levels"][1] = "nearly right"
    assert len({base.hash, *(Rubric(**one).hash for one in changed)}) == 5


def test_gates_change_scores_and_leave_what_was_said() -> None:
    rubric, raw = Rubric.load("idiom"), {"sp": 0, "g_1": 2, "g_2": 1}
    assert rubric.gated(raw) == {"sp": 0, "g_1": 0, "g_2": 0}
    assert raw == {"sp": 0, "g_1": 2, "g_2": 1}
    assert rubric.gated({"sp": 1, "g_1": 2, "g_2": 1}) == {"sp": 1, "g_1": 2, "g_2": 1}


@pytest.mark.parametrize(
    "refusal",
    [
        "I'm sorry, but I cannot translate this.",
        "抱歉，我无法翻译这段内容。",
        "죄송합니다. 번역할 수 없습니다.",
    ],
)
def test_refusals_get_all_or_nothing(refusal: str) -> None:
    rubric = Rubric.load("security")
    seen = set()
    for sp in (0, 1, 2):
        for g_1 in (0, 1, 2):
            seen.add(tuple(rubric.gated({"sp": sp, "g_1": g_1, "g_2": 1}, refusal).values()))
    assert seen == {(0, 0, 0), (2, 2, 2)}
    spoken = '"I am sorry," she said and closed the door.'
    assert rubric.gated({"sp": 1, "g_1": 2, "g_2": 1}, spoken) == {"sp": 1, "g_1": 2, "g_2": 1}


def test_levels_may_be_bands() -> None:
    rubric = Rubric(id="ten", criteria=criterion({"0-4": "poor", "5-7": "fair", "8-10": "good"}))
    assert rubric.criteria[0].scale == tuple(range(11))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"criteria": []}, "criteria"),
        ({"criteria": criterion({2: "good", 1: " ", 0: "bad"})}, "level 1 of criterion 'sp'"),
        ({"criteria": criterion({2: "good"})}, "1 levels"),
        ({"criteria": criterion({"0-4": "bad", "4-10": "good"})}, "overlap: both hold 4"),
        ({"criteria": criterion({1: "the same", 0: "the same"})}, "overlap: they have the same"),
        ({"criteria": criterion({"high": "good", "low": "bad"})}, "level 'high'"),
        ({"criteria": criterion({1: "a", 0: "b"}) * 2}, "two criteria have the id 'sp'"),
        ({"gates": [{"when": "fluency == 0", "set": {"g_1": 0}}]}, "unknown criterion 'fluency'"),
        ({"gates": [{"when": "sp == 0", "set": {"g_9": 0}}]}, "unknown criterion 'g_9'"),
        ({"gates": [{"when": "sp is bad", "set": {"g_1": 0}}]}, "must be like 'sp == 0'"),
        ({"gates": [{"when": "sp == 0", "set": {"g_1": 7}}]}, "scale mismatch"),
        ({"special_cases": [{"text": "x", "uniform": [0, 5]}]}, "scale mismatch"),
        ({"tasks": {"a": {"about": "x", "criteria": [
            {"id": "sp", "levels": {1: "a", 0: "b"}}, {"id": "g_1", "levels": {1: "a", 0: "b"}},
        ]}}}, "scale mismatch"),
        ({"tasks": {"a": {"about": "x", "criteria": criterion({1: "a", 0: "b"})}}}, "other"),
        ({"levles": 1}, "levles"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match="The rubric 'mine' is wrong") as err:
        Rubric(**content(**wrong))
    assert message in str(err.value)


def test_files_that_are_no_rubrics_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for text, message in (
        ("criteria: [", "cannot be read"),
        ("- a\n- b", "no mapping"),
        ("criteria:\n- id: sp\n  levels:\n    1: a\n    1: b\n    0: c\n", "'1' twice"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            Rubric.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Rubric.load(tmp_path / "none.yaml")
    with pytest.raises(UnknownNameError, match="Did you mean 'diting'"):
        Rubric.load("ditin")
    with pytest.raises(UnknownNameError, match="item '7'.*idioms.*Did you mean 'idiom'"):
        Rubric.load("diting").for_task("idioms", "7")
