"""Turns held to a grammar: what models without any sense write is a call or an answer."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hanol import models
from hanol.engines import CheckpointEngine, Constraint, Message, Request, Sampling
from hanol.research import Researcher
from hanol.retrieval import Index
from hanol.runs import Budget, ModelAnswered, ReportUpdated, RunEnded, ToolReturned, TurnRejected
from hanol.tools import DEFAULT_TOOLS, ToolSpec, block_constraint, parse_turn, turn_constraint

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
CALENDAR = ToolSpec(
    "calendar",
    "Events.",
    {
        "type": "object",
        "properties": {
            "day": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
            "kind": {"enum": ["all", "own <b>"]},
            "most": {"type": "integer"},
            "weight": {"type": "number", "description": "Of each."},
            "whole": {"type": "boolean"},
            "place": {"type": "object", "properties": {"town": {"type": "string"}}},
        },
        "required": ["day"],
        "additionalProperties": False,
    },
)
# Keywords that no grammar has rules for, and a schema that allows anything.
ODD = ToolSpec(
    "odd",
    "Anything.",
    {
        "type": "object",
        "properties": {
            "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]},
            "any": {},
        },
    },
)
TOOLS = (*DEFAULT_TOOLS, CALENDAR, ODD, ToolSpec("none", "Nothing.", {"type": "object"}))


def tokenizer_of_noise(window: int) -> PreTrainedTokenizerFast:
    """Bytes, and a few pieces that cut tags where nobody expects it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("<", "/"), ("Ċ", "Ċ"), ('"', "]"), ("\\", '"')]
    vocab = {token: i for i, token in enumerate([*letters, *map("".join, merges)])}
    raw = Tokenizer(token_models.BPE(vocab=vocab, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    raw.add_special_tokens([AddedToken(word, special=True) for word in ("<|start|>", "<|end|>")])
    text = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|end|>", model_max_length=window
    )
    text.chat_template = TEMPLATE
    return text


def engine_of_noise(window: int) -> CheckpointEngine:
    """A random model over bytes, half of whose tokens are parts of letters."""
    text = tokenizer_of_noise(window)
    config = LlamaConfig(
        vocab_size=len(text), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=window,
        eos_token_id=text.eos_token_id,
    )  # fmt: skip
    model = models.build(config, seed=0).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 10.0  # logits of all sizes, so that temperature matters
    return CheckpointEngine(model, text, name="noise", max_batch=50)


def written(count: int, constraint: Constraint, tokens: int, temperature: float) -> list[Any]:
    """So many answers of a model without any sense."""
    engine = engine_of_noise(4096)
    request = Request(
        (Message("user", "Go."),),
        Sampling(temperature=temperature, max_tokens=tokens, seed=0),
        n=count,
        constraint=constraint,
    )

    async def ask() -> Any:
        try:
            return await engine.complete(request)
        finally:
            await engine.aclose()

    return list(asyncio.run(ask()).choices)


@pytest.mark.parametrize(
    "count", [20, pytest.param(170, marks=pytest.mark.slow)], ids="{} turns each".format
)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("shape", ["action", "report and action", "answer"])
def test_no_turn_is_malformed(shape: str, temperature: float, count: int) -> None:
    """At 170 each, 1,020 turns; the tokens are bytes, so that lengths are at their worst."""
    constraint = turn_constraint(
        TOOLS,
        512,
        thought_tokens=64,
        report_tokens=80 if shape == "report and action" else 0,
        answer_only=shape == "answer",
    )
    kinds: Counter[str] = Counter()
    for choice in written(count, constraint, 512, temperature):
        turn = parse_turn(choice.text, TOOLS)
        assert choice.finish_reason == "stop", choice.text
        assert turn.error is None, (choice.text, turn.detail)
        assert not turn.repaired, choice.text
        assert bool(turn.report) == (shape == "report and action")
        kinds[turn.kind] += 1
    assert kinds["answer"] == count or (shape != "answer" and kinds["tool_calls"])


CALL = '<tool_call>\n{"name": "search", "arguments": {"query": ["ferry fares"]}}\n</tool_call>'


@pytest.mark.parametrize(
    "turn",
    [
        f'<think>\nI need "Fares".\n</think>\n{CALL}',
        f"<think>It costs 5 < 7.50 euros, as List<int> does</think>\n{CALL}",
        f"I look for it.</think>\n{CALL}",
        CALL,
        "<think>\nIt is 3.\n</think>\n<answer>It is 3, <b>not</b> <4 [1].\n</answer>",
        '<tool_call>\n{"name": "PythonInterpreter", "arguments": {}}\n<code>\n'
        "if a <= b < c:\n    print(1)\n</code>\n</tool_call>",
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["a character a token", "as it is"])
def test_a_right_turn_is_allowed_however_tokens_cut_it(turn: str, whole: bool) -> None:
    """A tag begins within a token, or a token apart ends the text before it."""
    llguidance = pytest.importorskip("llguidance")
    from llguidance.hf import from_tokenizer

    tokenizer = tokenizer_of_noise(4096)
    ids = tokenizer(turn).input_ids
    if not whole:
        ids = [i for char in turn for i in tokenizer(char).input_ids]
    grammar = turn_constraint(TOOLS, 2048, prose=True).text
    matcher = llguidance.LLMatcher(from_tokenizer(tokenizer), grammar)
    assert matcher.validate_tokens(ids) == len(ids)


def test_a_summary_is_one_block_of_bounded_length() -> None:
    for choice in written(8, block_constraint("summary", 100), 100, 1.0):
        assert choice.text.startswith("<summary>")
        assert choice.text.endswith("</summary>")
        assert choice.text[9:-10].strip()


def test_llama_cpp_gets_the_grammar_where_its_own_language_can_say_it() -> None:
    grammar = turn_constraint(DEFAULT_TOOLS, 512)
    assert grammar.gbnf is not None
    names = [line.partition(" ::= ")[0] for line in grammar.gbnf.splitlines()]
    assert names[0] == "root"
    assert len(names) == len(set(names))
    assert turn_constraint([ODD], 512).gbnf is None


@pytest.mark.parametrize("mode", ["react", "markov", "resum"])
def test_a_model_without_any_sense_runs_to_an_answer(
    mode: Any, cities: Index, tmp_path: Path
) -> None:
    """Nothing but noise, in a window of 2,048 bytes: calls run, nothing is refused, it ends."""
    engine = engine_of_noise(2048)
    researcher = Researcher(
        cities, engine, mode=mode, run_folder=tmp_path, budget=Budget(model_calls=4),
        sampling=Sampling(temperature=1.0),
    )  # fmt: skip
    events = list(researcher.ask("What is the capital?"))
    asyncio.run(engine.aclose())
    assert not [event for event in events if isinstance(event, TurnRejected)]
    ended = events[-1]
    assert isinstance(ended, RunEnded)
    assert ended.answer
    assert ended.repaired == 0
    turns = [e for e in events if isinstance(e, ModelAnswered) and e.purpose == "turn"]
    assert turns
    assert all(parse_turn(turn.text).kind == "tool_calls" for turn in turns[:-1])
    assert any(isinstance(event, ToolReturned) for event in events) or len(turns) == 1
    if mode == "markov":
        assert any(isinstance(event, ReportUpdated) and not event.kept for event in events)
