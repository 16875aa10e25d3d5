"""Rankings: questions behind every text in one pass, and learning which text answers."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hanol.errors import DataError
from hanol.training import MessagesSection, RankingRow, SftSettings, read_chats, sft_loss, train_sft
from hanol.training._ranking import (  # private: the pass alone
    ranking_inputs,
    ranking_scores,
)

chat = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("chat_model.py"))))


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


ROW = RankingRow(((5, 6, 7, 8), (9, 10), (3,)), ((11, 12, 13), (14,), (15, 16)), (0, 1, 2))


def test_each_pair_scores_as_if_it_stood_alone() -> None:
    model = make_model()
    with torch.inference_mode():
        found = ranking_scores(model, model.get_output_embeddings(), ranking_inputs(ROW))
        for i, text in enumerate(ROW.texts):
            for j, question in enumerate(ROW.questions):
                ids = torch.tensor([[*text, *question]])
                logprobs = model(ids).logits[0].log_softmax(-1)
                places = range(len(text) - 1, ids.shape[1] - 1)
                alone = sum(logprobs[t, ids[0, t + 1]].item() for t in places)
                assert found[i, j].item() == pytest.approx(alone, abs=1e-4)


def pointing(number: int) -> list[RankingRow]:
    """Rows whose question is the first token of the text that answers it."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(number):
        a, b, c = (torch.randperm(30, generator=generator)[:3] + 8).tolist()
        texts = ((a, 1, 2), (b, 1, 2), (c, 1, 2))
        rows.append(RankingRow(texts, ((3, a), (3, c)), (0, 2)))
    return rows


def test_which_text_answers_is_learned(tmp_path: Path) -> None:
    model, rows = make_model(), pointing(64)
    before = sft_loss(model, rows)
    plan = SftSettings(
        tokens=80_000, batch_size=4, micro_batches=4, adamw_lr=0.01, muon_lr=None, warmup_steps=5
    )
    train_sft(model, rows, plan, tmp_path)
    held_out = pointing(80)[64:]
    model.eval()
    assert sft_loss(model, held_out) < 0.5 * before
    with torch.inference_mode():
        inputs = [ranking_inputs(row) for row in held_out]
        scores = [ranking_scores(model, model.get_output_embeddings(), one) for one in inputs]
    right = [
        score.argmax(0).tolist() == list(row.answers)
        for score, row in zip(scores, held_out, strict=True)
    ]
    assert sum(right) > 0.7 * len(right), "by chance a ninth"


def test_rankings_go_one_by_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set `micro_batches` to"):
        train_sft(make_model(), pointing(8), SftSettings(tokens=9, batch_size=4), tmp_path)


GOOD = {"prompts": ["a: b\nQ:", "Q:"], "continuations": [" c", " d"], "answers": [0, 1]}


def test_files_of_rankings(tmp_path: Path) -> None:
    chat.make_checkpoint(tmp_path / "model")
    from hanol import models

    tokenizer = models.load_tokenizer(tmp_path / "model")
    bad: list[dict[str, Any]] = [
        {**GOOD, "answers": [0]},
        {**GOOD, "answers": [0, 2]},
        {**GOOD, "answers": [0, -1]},
        {**GOOD, "prompts": "a"},
        {**GOOD, "continuations": [" c", ""]},
        {"prompts": ["Q:"]},
        {**GOOD, "prompts": ["Q:"], "answers": [0, 0]},
        {**GOOD, "continuations": ["long " * 400, " d"]},
    ]
    chat.write_rows(tmp_path / "rows.jsonl", [GOOD, *bad])
    section = MessagesSection(path=(str(tmp_path / "rows.jsonl"),), held_out=0)
    found = read_chats(section, tokenizer, 200)
    [row] = found.train
    assert isinstance(row, RankingRow)
    assert row.answers == (0, 1)
    assert [tokenizer.decode(question) for question in row.questions] == [" c", " d"]
    assert found.left_out == {"malformed": 6, "no_answer": 1, "too_long": 1}
    chat.write_rows(tmp_path / "mixed.jsonl", [GOOD, *chat.conversations(2)])
    section = MessagesSection(path=(str(tmp_path / "mixed.jsonl"),), held_out=0)
    with pytest.raises(DataError, match="one kind"):
        read_chats(section, tokenizer, 200)
