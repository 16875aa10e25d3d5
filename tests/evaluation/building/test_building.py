"""Suites from parallel text: what is found, drawn, damaged, written and annotated."""

import json
import struct
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

# Private: the application is no part of the Python interface.
from hanol.cli import app
from hanol.errors import ConfigError, DataError, MissingExtraError, UnknownNameError
from hanol.evaluation import (
    PHENOMENA,
    Item,
    ParallelText,
    PhenomenonFinder,
    build_suite,
    candidate_rows,
    metric_scores,
    mine_terms,
    open_metric,
    open_task,
    read_items,
    read_label_studio,
    read_labels,
    read_parallel,
    write_suite,
)
from hanol.files import cache_folder
from hanol.rows import read_rows
from hanol.scoring import spearman

DIRECTIONS = [("zh", "en"), ("ko", "en"), ("ko", "zh")]


@pytest.fixture(scope="module")
def texts() -> list[ParallelText]:
    return read_parallel("sample")


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_a_suite_has_items_of_every_class(texts, source: str, target: str) -> None:
    suite = build_suite(texts, source, target, per_class=4)
    drawn = Counter(item.phenomenon for item in suite.items)
    assert set(drawn) == set(PHENOMENA)
    assert max(drawn.values()) == 4
    assert len({item.source for item in suite.items}) == len(suite.items)
    for item in suite.items:
        own = [span for span in item.spans if span.phenomenon == item.phenomenon]
        assert own, "an item shows what it was drawn for"
        for span in item.spans:
            text = item.source if span.side == "source" else item.reference
            assert text[span.begin : span.end] == span.text != ""
    assert build_suite(texts, source, target, per_class=4) == suite
    assert build_suite(texts, source, target, per_class=4, seed=1) != suite


@pytest.mark.parametrize(
    ("direction", "source", "reference", "expected"),
    [
        ("zh-en", "别画蛇添足了", "Don't gild the lily", {"idiom": ["画蛇添足"]}),
        ("ko-en", "문을 열고 나갔다", "She opened the door and left", {"zero": ["She"]}),
        ("ko-en", "그녀는 문을 열고 나갔다", "She opened the door and left", {}),
        ("ko-zh", "내일 가겠지만 어제는 못 갔다", "他明天去", {"tense": ["내일", "겠", "어제"]}),
        ("zh-en", "电话010-2345-6789", "Phone 010-2345-6789", {"security": ["010-2345-6789"]}),
        ("ko-en", "한눈에 보인다", "Seen at a glance", {}),
        ("ko-en", "눈이 온다", "Snow falls", {"lexical": ["눈"]}),
        ("zh-en", "打开「文件」菜单", "Open the “File” menu", {"terminology": ["文件"]}),
    ],
)
def test_phenomena(direction: str, source: str, reference: str, expected: dict) -> None:
    found: dict[str, list[str]] = {}
    for span in PhenomenonFinder(*direction.split("-")).find(source, reference):
        if span.phenomenon in expected or not expected:
            found.setdefault(span.phenomenon, []).append(span.text)
    found = {name: list(dict.fromkeys(words)) for name, words in found.items()}
    assert {name: found.get(name) for name in expected} == expected
    if not expected:
        assert "zero" not in found
        assert "lexical" not in found


def test_lists_of_the_user_extend_ours(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("idiom: {zh: [金丹大道]}\n", "utf-8")
    finder = PhenomenonFinder("zh", "en", words=tmp_path / "own.yaml")
    assert [span.text for span in finder.find("金丹大道，画蛇添足", "x")] == [
        "金丹大道",
        "画蛇添足",
    ]
    (tmp_path / "own.yaml").write_text("idoms: {zh: [a]}\n")
    with pytest.raises(UnknownNameError, match="Did you mean 'idiom'"):
        PhenomenonFinder("zh", "en", words=tmp_path / "own.yaml")
    (tmp_path / "own.yaml").write_text("- a\n")
    with pytest.raises(DataError, match="no word lists"):
        PhenomenonFinder("zh", "en", words=tmp_path / "own.yaml")


def test_terms_are_mined() -> None:
    pairs = [(f"打开文件{i}", f"Open file {i}") for i in range(5)]
    pairs += [(f"关闭窗口{i}", f"Close the window {i}") for i in range(5)]
    pairs += [(f"今天天气好{i}", f"It is fine today {i}") for i in range(20)]
    terms = mine_terms(pairs, min_count=4)
    assert terms["打开文件"] == ["open file"]
    assert terms["关闭窗口"] == ["close the window"]
    assert "打开" not in terms, "it stands in no pair without the longer one"


def test_candidates_have_the_quality_that_they_were_made_with(texts) -> None:
    suite = build_suite(texts, "zh", "en", per_class=6)
    rows = list(candidate_rows(suite))
    assert rows == list(candidate_rows(suite))
    systems = Counter(row["system"] for row in rows)
    assert {"reference", "shuffled", "cut", "mixed", "copied", "swapped"} <= set(systems)
    for row in rows:
        item, human = Item(**row), row["meta"]["human"]
        assert human["total"] == human["sp"] + human["g_1"] + human["g_2"]
        assert human["sp"] or not (human["g_1"] or human["g_2"]), "the gate of DITING"
        if item.system == "shuffled":
            assert sorted(item.candidate.split()) == sorted(item.reference.split())
        if item.system in ("copied", "swapped"):
            assert human["total"] == 0
    machine = suite.items[0].model_copy(update={"quality": "machine"})
    suite = build_suite(texts, "zh", "en", per_class=1)
    (row,) = candidate_rows(type(suite)("zh", "en", (machine,), {}, {}, {}))
    assert (row["system"], row["meta"].get("human")) == ("machine", None)


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_metrics_are_judged_on_known_quality(texts, source: str, target: str) -> None:
    """Metrics see damage; letters of the source and lengths alone see some of it."""
    pytest.importorskip("sacrebleu")
    suite = build_suite(texts, source, target, per_class=8)
    rows = [row for row in candidate_rows(suite) if "human" in row["meta"]]
    items = [Item(**row) for row in rows]
    human = [row["meta"]["human"]["total"] for row in rows]
    rho = {}
    for name in ("chrf", "bleu", "residue", "length"):
        scores = metric_scores(open_metric(name), items)
        rho[name] = spearman([scores[item.id] for item in items], human)
    assert rho["chrf"] > 0.7, rho
    assert rho["bleu"] > 0.65, rho
    assert 0.3 < rho["residue"] < rho["chrf"], rho
    assert rho["length"] < rho["chrf"], rho


@pytest.mark.skipif(
    not (cache_folder() / "e5-small" / "modules.json").is_file(),
    reason="e5-small is not pulled on this machine",
)
def test_similarity_of_embeddings_is_judged_too(texts) -> None:
    suite = build_suite(texts, "ko", "zh", per_class=2)
    rows = list(candidate_rows(suite))
    items = [Item(**row) for row in rows]
    scores = metric_scores(open_metric("similarity:e5-small"), items)
    human = [row["meta"]["human"]["total"] for row in rows]
    assert spearman([scores[item.id] for item in items], human) > 0.7


def test_terminology_is_judged_by_the_suites_own_glossary(texts, tmp_path: Path) -> None:
    terms = {"文件": ["File"], "格式": ["Format"], "打印": ["Print"], "备份": ["Backup"]}
    suite = build_suite(texts, "zh", "en", classes=["terminology"], terms=terms)
    write_suite(suite, tmp_path / "s")
    metric = open_metric(f"terms:{tmp_path / 's' / 'terms.jsonl'}")
    items = list(read_items(tmp_path / "s" / "candidates.jsonl"))
    scores = metric_scores(metric, items)
    by_system = {
        name: [scores[item.id] for item in items if item.system == name and item.id in scores]
        for name in ("reference", "swapped", "copied")
    }
    # A folder (文件夹) has a file (文件) in it: a matcher of letters cannot know.
    assert fmean(by_system["reference"]) > 1.7, scores
    assert fmean(by_system["swapped"]) < 1.0, scores
    assert set(by_system["copied"]) == {0.0}


def test_a_suite_is_written_run_and_annotated(texts, tmp_path: Path) -> None:
    suite = build_suite(texts, "zh", "en", per_class=3)
    files = write_suite(suite, tmp_path / "s")
    names = {path.relative_to(tmp_path / "s").as_posix() for path in files}
    assert {"suite.jsonl", "task.jsonl", "candidates.jsonl", "annotate/idiom/tasks.json"} <= names
    task = open_task(str(tmp_path / "s" / "task.jsonl"), scorer="metric:residue")
    assert len(task.items) == len(suite.items)
    assert task.items[0].question.endswith(suite.items[0].source)
    labelled = read_labels(tmp_path / "s" / "labels.jsonl")
    assert labelled[0].human() == 6.0
    # People score the tasks in Label Studio; the ids and levels come back.
    tasks = json.loads((tmp_path / "s/annotate/idiom/tasks.json").read_text("utf-8"))
    page = (tmp_path / "s/annotate/idiom/labels.xml").read_text("utf-8")
    assert 'Choices name="g_2"' in page
    assert "model" not in tasks[0]["data"], "blind"
    for number, one in enumerate(tasks):
        one["id"] = 1000 + number  # it numbers them anew
        result = [
            {"from_name": name, "type": "choices", "value": {"choices": [level]}}
            for name, level in (("sp", "2"), ("g_1", "1"), ("g_2", "0"))
        ]
        one["annotations"] = [{"completed_by": {"id": 7, "email": "a@b.c"}, "result": result}]
        one["drafts"] = [{"user": "a@b.c"}]
    export = tmp_path / "export.json"
    export.write_text(json.dumps(tasks, ensure_ascii=False), "utf-8")
    items = read_label_studio(export)
    known = {row["id"] for _, row in read_rows(tmp_path / "s" / "candidates.jsonl")}
    assert {item.id for item in items} <= known
    assert items[0].meta["human"]["total"] == 3.0
    assert items[0].source == suite.items[0].source
    assert "a@b.c" not in str([item.model_dump() for item in items])
    assert {one.id for one in read_labels(export)} == {item.id for item in items}


def test_outputs_of_systems_are_annotated(texts, tmp_path: Path) -> None:
    suite = build_suite(texts, "zh", "en", per_class=2)
    row = {"id": f"{suite.items[0].id}#2", "candidate": "Some text.", "system": "m"}
    outputs = tmp_path / "outputs.jsonl"
    outputs.write_text(json.dumps(row) + "\n")
    write_suite(suite, tmp_path / "s", outputs=outputs)
    (tasks,) = (tmp_path / "s" / "annotate").glob("*/tasks.json")
    (task,) = json.loads(tasks.read_text("utf-8"))
    assert task["data"]["model_output"] == "Some text."
    assert suite.items[0].spans[0].text in task["data"]["evidence"]
    outputs.write_text(json.dumps(row | {"id": "other"}) + "\n")
    with pytest.raises(DataError, match="'other' is no output"):
        write_suite(suite, tmp_path / "t", outputs=outputs)
    assert not (tmp_path / "t").exists()


def catalogue(path: Path, messages: dict[str, str]) -> None:
    """A compiled catalogue, as msgfmt writes it."""
    messages = {"": "Content-Type: text/plain; charset=UTF-8\n"} | messages
    keys = sorted(messages)
    ids = b"".join(key.encode() + b"\0" for key in keys)
    texts = b"".join(messages[key].encode() + b"\0" for key in keys)
    start = 28 + 16 * len(keys)
    tables, at = [b"", b""], [start, start + len(ids)]
    for key in keys:
        for side, text in enumerate((key, messages[key])):
            tables[side] += struct.pack("<II", len(text.encode()), at[side])
            at[side] += len(text.encode()) + 1
    head = struct.pack("<7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(head + b"".join(tables) + ids + texts)


def test_installed_text_is_read_where_it_is(tmp_path: Path) -> None:
    for code, texts in {
        "en-US": ("Opens the file.", "Same", "Closes it."),
        "ko": ("파일을 엽니다.", "Same", "닫습니다."),
        "zh-CN": ("打开文件。", "Same", ""),
    }.items():
        page = "".join(f'<p id="par_id{n}">{text}</p>' for n, text in enumerate(texts))
        folder = tmp_path / "usr/share/libreoffice/help" / code / "text"
        folder.mkdir(parents=True)
        (folder / "a.html").write_text(f"<html><body>{page}</body></html>", "utf-8")
    found = read_parallel("libreoffice-help", root=tmp_path)
    assert [one.texts for one in found] == [
        {"en": "Opens the file.", "ko": "파일을 엽니다.", "zh": "打开文件。"},
        {"en": "Closes it.", "ko": "닫습니다."},
    ]
    assert found[1].context["zh"] == "打开文件。"
    locale = tmp_path / "usr/share/locale"
    catalogue(
        locale / "ko/LC_MESSAGES/freeciv-core.mo",
        {"?menu:_Build a %s city": "도시 %s 건설", "Yes": "Yes"},
    )
    catalogue(locale / "zh_CN/LC_MESSAGES/freeciv-core.mo", {"?menu:_Build a %s city": "建造城市"})
    (game,) = read_parallel("catalogue:freeciv-core", root=tmp_path)
    assert game.texts == {"en": "Build a city", "ko": "도시 건설", "zh": "建造城市"}
    assert game.quality == {"ko": "machine"}


HELP = Path("/usr/share/libreoffice/help")


@pytest.mark.skipif(
    not all((HELP / code).is_dir() for code in ("en-US", "ko", "zh-CN")),
    reason="LibreOffice's help in three languages is not installed",
)
def test_the_real_help() -> None:
    found = read_parallel("libreoffice-help")
    assert sum(len(one.texts) == 3 for one in found) > 18_000
    suite = build_suite(found, "ko", "zh", per_class=20)
    assert {"lexical", "terminology", "zero"} <= {item.phenomenon for item in suite.items}


def test_graded_sentences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = {"chinese": "你好吗", "translation": {"en": "How are you?"}, "hsk_level": 1}
    package = tmp_path / "hsk_sentences_audio"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "data/sentences.json").write_text(json.dumps([row]), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (one,) = read_parallel("hsk")
    assert (one.texts["zh"], one.origin) == ("你好吗", "hsk level 1")
    (package / "data/sentences.json").write_text("[{}]")
    with pytest.raises(DataError, match="not as version"):
        read_parallel("hsk")


def test_what_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [one for one in sys.path if "hsk" not in one])
    with pytest.raises(UnknownNameError, match="libreoffice-help"):
        read_parallel("libreofice-help")
    with pytest.raises(MissingExtraError, match="apt-get install"):
        read_parallel("libreoffice-help", root=tmp_path)
    with pytest.raises(MissingExtraError, match="freeciv-data"):
        read_parallel("catalogue:freeciv-core", root=tmp_path)
    (tmp_path / "a.jsonl").write_text('{"en": "only one", "ok": ""}\n')
    with pytest.raises(DataError, match="two columns named by language"):
        read_parallel(str(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text('{"en": "Nothing to see", "zh": "没什么可看的"}\n')
    with pytest.raises(DataError, match="No text can be used for ko-en: 1 without"):
        build_suite(read_parallel(str(tmp_path / "a.jsonl")), "ko", "en")
    with pytest.raises(ConfigError, match="two languages"):
        build_suite([], "ko", "ko")
    hollow = [SimpleNamespace(id="1", texts={"zh": "这里有很多很多云", "en": "Clouds, clouds"})]
    with pytest.raises(DataError, match="None of 1 texts shows"):
        build_suite(hollow, "zh", "en", terms={})  # type: ignore[arg-type]


def test_the_command(tmp_path: Path) -> None:
    arguments = ["eval", "build", "sample", "--languages", "ko-zh", "--per-class", "2"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "s"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["suite"], found["items"]) == ("ko-zh", 12)
    assert all(Path(path).is_file() for path in found["files"])
    again = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "s")])
    assert again.exit_code == 1
    assert "exists already" in again.output
    plan = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "t"), "--dry-run"])
    assert plan.exit_code == 0
    assert not (tmp_path / "t").exists()
