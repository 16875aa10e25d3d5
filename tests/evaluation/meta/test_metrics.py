"""Metrics of texts: values of their libraries, rules with the place, and what they refuse."""

import math
from pathlib import Path

import pytest

from hanol import evaluation
from hanol.errors import CheckpointError, DataError, UnknownNameError


def item(candidate: str, reference: str | None = None, **more: str) -> evaluation.LabelledItem:
    return evaluation.LabelledItem(
        id="x", candidate=candidate, reference=reference, group="g", ratings={}, **more
    )


GOOD = item("The cat sat on the mat.", "The cat sat on a mat.")
BAD = item("Dogs bark loudly.", "The cat sat on a mat.")


@pytest.mark.parametrize("name", ["bleu", "chrf", "chrf++", "ter", "rouge1", "rouge2", "rougeL"])
def test_better_texts_score_higher(name: str) -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    metric = evaluation.open_metric(name)
    assert metric(GOOD) > metric(BAD)
    same = item("그는 어제 서울에서 돌아왔다.", "그는 어제 서울에서 돌아왔다.")
    assert metric(same) == pytest.approx(0 if name == "ter" else 100, abs=1e-6)
    assert metric.label == ("-ter" if name == "ter" else name)
    assert metric.signature
    with pytest.raises(DataError, match=f"Item 'x' has no `reference`.*'{name.replace('+', '.')}'"):
        metric(item("no reference"))


@pytest.mark.parametrize(
    ("reference", "near", "far"),
    [
        ("他昨天从首尔回来了。", "他昨天从首尔回到家了。", "猫坐在垫子上面。"),
        ("그는 어제 서울에서 돌아왔다.", "그는 어제 서울에서 왔다.", "고양이가 방석에 앉았다."),
    ],
    ids=["zh", "ko"],
)
def test_scripts_without_spaces_are_cut_into_characters(
    reference: str, near: str, far: str
) -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    for name in ("bleu", "rouge1", "ter"):
        metric = evaluation.open_metric(name)
        assert metric(item(near, reference)) > metric(item(far, reference))
    sacrebleu = pytest.importorskip("sacrebleu")
    tokenize = "zh" if "他" in reference else "char"
    expected = sacrebleu.BLEU(effective_order=True, tokenize=tokenize)
    found = evaluation.open_metric("bleu").value(item(near, reference))
    assert found == pytest.approx(expected.sentence_score(near, [reference]).score)
    assert evaluation.open_metric("rouge1")(item(near, reference)) > 60


def test_left_over_letters_are_found_where_they_are() -> None:
    metric = evaluation.open_metric("residue")
    mixed = item("He met 王小明 in Seoul 시내.", "He met Wang Xiaoming in Seoul.")
    assert metric(mixed) == -5
    assert [mixed.candidate[one.begin : one.end] for one in metric.find(mixed)] == [
        "王小明", "시내",
    ]  # fmt: skip
    assert metric.find(mixed)[0].why == "left over in Han"
    # Chinese is no residue in a Chinese text, words of an English source are.
    chinese = item("点击 Settings 和 LibreOffice", "点击 LibreOffice 设置",
                   source="Click LibreOffice Settings")  # fmt: skip
    assert [chinese.candidate[one.begin : one.end] for one in metric.find(chinese)] == ["Settings"]
    assert metric(item("설정을 누르세요", "설정을 클릭하세요")) == 0


def test_lengths_are_compared_as_a_factor() -> None:
    metric = evaluation.open_metric("length")
    half, double = (metric(item("a" * n, "a" * 99)) for n in (49, 199))
    assert half == pytest.approx(double) == pytest.approx(-math.log(2))
    assert metric(item("a" * 99, "b" * 99)) == 0


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        ("", "nothing"),
        ("  \n", "nothing"),
        ("I'm sorry, but I cannot translate this text.", "a refusal"),
        ("抱歉，我无法翻译。", "a refusal"),
        ("죄송합니다. 번역할 수 없습니다.", "a refusal"),
        ("He left. (Note: the idiom means courage.)", "a note of the translator"),
        ("他走了。（注：成语）", "a note of the translator"),
        ("Answer: He left.", "a label"),
        ("He said 一帆风顺万事如意心想事成恭喜发财 to us.", "copied from the source"),
    ],
)
def test_defects_are_found(candidate: str, why: str) -> None:
    metric = evaluation.open_metric("defects")
    found = metric.find(item(candidate, source="祝你一帆风顺万事如意心想事成恭喜发财"))
    assert why in {one.why for one in found}
    assert all(0 <= one.begin <= one.end <= len(candidate) for one in found)


def test_a_sound_text_has_no_defects() -> None:
    text = "The note said nothing; the answer was that he could not sail against the wind."
    assert evaluation.open_metric("defects").find(item(text, source="他不能逆风航行")) == []


def test_the_translation_of_another_sentence_is_found() -> None:
    texts = ["The harbour was closed at night.", "Her brother sells old maps in town."]
    items = [
        item(texts[0], texts[0]).model_copy(update={"id": "right"}),
        item(texts[0], texts[1]).model_copy(update={"id": "wrong"}),
    ]
    scores = evaluation.metric_scores(evaluation.open_metric("wrong-sentence"), items)
    assert scores["right"] > 0.5 > 0 > scores["wrong"]


@pytest.fixture
def glossary(tmp_path: Path) -> Path:
    path = tmp_path / "terms.csv"
    path.write_text(
        "source,preferred,allowed,forbidden\n"
        "凶卦,ill omen|omen of doom,bad hexagram,xiong gua\n"
        "장부,ledger,,book\n"
        "城市,city,,\n",
        "utf-8",
    )
    return path


@pytest.mark.parametrize(
    ("candidate", "source", "score"),
    [
        ("It was an Ill Omen.", "这是凶卦", 2),
        ("Two bad hexagrams.", "这是凶卦", 1),
        ("It was xiong gua.", "这是凶卦", 0),
        ("It was a 凶卦.", "这是凶卦", 0),
        ("It was bad.", "这是凶卦", 0),
        ("The ledger holds ill omens.", "장부에 凶卦", 2),
        ("The book holds ill omens.", "장부에 凶卦", 1),
        ("Many cities", "城市", 2),
        ("Omission of doom", "这是凶卦", 0),
    ],
)
def test_terms_are_at_the_level_of_the_glossary(
    glossary: Path, candidate: str, source: str, score: float
) -> None:
    metric = evaluation.open_metric(f"terms:{glossary}")
    one = item(candidate, source=source)
    assert metric(one) == score
    assert all(candidate[span.begin : span.end].strip() for span in metric.find(one))


def test_items_without_a_term_are_not_scored(glossary: Path) -> None:
    items = [item("a", source="天"), item("city", source="城市").model_copy(update={"id": "y"})]
    metric = evaluation.open_metric(f"terms:{glossary}")
    assert evaluation.metric_scores(metric, items) == {"y": 2}
    with pytest.raises(DataError, match="no `source`"):
        metric(item("a"))


def test_glossaries_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "terms.csv"
    path.write_text("source,preferred\nx,\n")
    with pytest.raises(DataError, match="line 2: the term has no `preferred`"):
        evaluation.open_metric(f"terms:{path}")
    path.write_text("source,preferred\n")
    with pytest.raises(DataError, match="holds no terms"):
        evaluation.open_metric(f"terms:{path}")


@pytest.mark.parametrize(
    ("candidate", "score", "other"),
    [
        ("He walked home and said nothing.", 1, []),
        ("He is home and says nothing, he has walked.", 0, ["is", "says", "has"]),
        ('She looked up. "It is late, and he is tired."', 1, []),
    ],
)
def test_the_tense_of_the_narration(candidate: str, score: float, other: list[str]) -> None:
    metric = evaluation.open_metric("tense")
    one = item(candidate, 'He went home. "I am tired," he didn\'t say.')
    assert metric(one) == score
    found = metric.find(one)
    assert [candidate[span.begin : span.end] for span in found] == other
    assert math.isnan(metric(item("Home.", "He went home.")))


def test_pronouns_of_another_person() -> None:
    metric = evaluation.open_metric("pronouns")
    reference = "She took her coat and followed him."
    same, wrong = (
        item("Then she put on her coat, following him.", reference),
        item("Then he put on his coat, following her.", reference),
    )
    assert metric(same) == 0
    assert metric(wrong) == pytest.approx(-2 / 6)
    assert [wrong.candidate[one.begin : one.end] for one in metric.find(wrong)] == ["his"]


def test_names_of_metrics() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'bleu'"):
        evaluation.open_metric("blue")
    with pytest.raises(UnknownNameError, match="similarity:NAME"):
        evaluation.open_metric("bleu:zh")
    with pytest.raises(DataError, match="needs a glossary: write terms:NAME"):
        evaluation.open_metric("terms")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of random weights: equal texts have equal vectors, others do not."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]
    plain = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=512,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_similarity_is_the_cosine_of_means(encoder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    metric = evaluation.open_metric(f"similarity:{encoder}")
    items = [
        item("abc", "abc"), item("abc", "zyxwvu", source="abc").model_copy(update={"id": "y"})
    ]  # fmt: skip
    scores = evaluation.metric_scores(metric, items)
    assert scores["x"] == pytest.approx(1, abs=1e-5)
    tokenizer, model = (kind.from_pretrained(encoder) for kind in (AutoTokenizer, AutoModel))
    with torch.inference_mode():
        a, b = (
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            for text in ("abc", "zyxwvu")
        )
    assert scores["y"] == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-5)
    across = evaluation.open_metric(f"cross-similarity:{encoder}")
    assert across(items[1]) == pytest.approx(1, abs=1e-5)
    with pytest.raises(DataError, match="no `source`"):
        across(items[0])
    with pytest.raises(CheckpointError):
        evaluation.open_metric("similarity:no-such-encoder")
