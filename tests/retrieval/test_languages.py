"""Korean, Chinese and English in one space, where `e5-small` was pulled."""

from pathlib import Path

import pytest

from hanol.files import cache_folder
from hanol.retrieval import Index

pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.skipif(
    not (cache_folder() / "e5-small" / "modules.json").is_file(),
    reason="e5-small is not pulled on this machine",
)

TOPICS = {
    "keys": {
        "en": "How often are the encryption keys rotated?",
        "ko": "암호화 키는 석 달마다 교체하며 이전 키는 보관하지 않는다.",
        "zh": "加密密钥每三个月更换一次，旧密钥不予保留。",
    },
    "library": {
        "en": "When does the town library open on Sundays?",
        "ko": "시립 도서관은 일요일 오전 열 시에 문을 연다.",
        "zh": "市图书馆星期日上午十点开门。",
    },
    "bread": {
        "en": "How long does the bread stay in the oven?",
        "ko": "반죽을 오븐에 넣고 사십 분 동안 굽는다.",
        "zh": "把面团放进烤箱烤四十分钟。",
    },
    "train": {
        "en": "Where do passengers change trains for the airport?",
        "ko": "공항으로 가는 승객은 서울역에서 열차를 갈아탄다.",
        "zh": "前往机场的乘客在首尔站换乘列车。",
    },
}


@pytest.mark.parametrize("asked", ["en", "ko", "zh"])
@pytest.mark.parametrize("written", ["en", "ko", "zh"])
def test_a_question_finds_the_passage_in_another_language(
    asked: str, written: str, tmp_path: Path
) -> None:
    if asked == written:
        pytest.skip("one language")
    for topic, texts in TOPICS.items():
        (tmp_path / f"{topic}.txt").write_text(texts[written], "utf-8")
    with Index.open(tmp_path, embedder="e5-small") as index:
        assert index.add().embedded == len(TOPICS)
        for topic, texts in TOPICS.items():
            for mode in ("dense", "hybrid"):
                assert index.search(texts[asked], k=1, mode=mode)[0].document == f"{topic}.txt"
