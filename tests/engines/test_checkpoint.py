"""Batching and reuse change the work alone: answers are those of a plain model, one by one."""

import asyncio
import functools
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoTokenizer, MistralConfig

from hanol import autodeco, models
from hanol.engines import (
    CheckpointEngine,
    Completion,
    Message,
    Request,
    Sampling,
    open_engine,
)
from hanol.errors import CheckpointError, EngineError
from hanol.runs import gather

from .conftest import KINDS, LLAMA, RECURRENT, checkpoint, tokenizer

WORDS = ["abba", "the cat", "a 1000", "hello there, world", "x", "what is the capital of Korea?"]


OF_REQUEST = {"prompt_ids", "prefill", "n", "tools", "constraint", "top_logprobs"}


class Expected(NamedTuple):
    ids: list[int]
    logprobs: list[float]


_tokenizer_of = functools.cache(AutoTokenizer.from_pretrained)


def rendered(folder: Path, messages: tuple[Message, ...]) -> list[int]:
    made = _tokenizer_of(folder)
    text = made.apply_chat_template(
        [m.to_dict() for m in messages], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = made(text, add_special_tokens=False).input_ids
    return ids


@torch.inference_mode()
def greedy(model: Any, ids: list[int], steps: int, penalty: float = 0.0) -> Expected:
    """Likeliest tokens by whole forward passes: no cache, no batch."""
    new: list[int] = []
    logprobs = []
    for _ in range(steps):
        logits = model(input_ids=torch.tensor([ids + new])).logits[0, -1].float()
        logits[sorted(set(new))] -= penalty
        token = int(logits.argmax())
        logprobs.append(float(logits.log_softmax(-1)[token]))
        new.append(token)
        if token == model.generation_config.eos_token_id:
            break
    return Expected(new, logprobs)


@contextmanager
def counted(engine: Any) -> Iterator[list[int]]:
    """How many tokens each pass of the model is given."""
    fed: list[int] = []
    embedding = engine._worker._model.get_input_embeddings()
    hook = embedding.register_forward_hook(
        lambda module, inputs, out: fed.append(inputs[0].numel())
    )
    try:
        yield fed
    finally:
        hook.remove()


def ask(*contents: str, **values: Any) -> Request:
    """A conversation: user and assistant in turn, after a system message."""
    messages = [Message("system", "Answer the user in a few words.")]
    messages += [
        Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(contents)
    ]
    more = {"top_logprobs": 0} | {key: values.pop(key) for key in OF_REQUEST & values.keys()}
    return Request(tuple(messages), Sampling(**{"temperature": 0.0, **values}), **more)


def run(engine: Any, *requests: Request) -> list[Completion]:
    async def together() -> list[Completion]:
        return list(await gather(engine.complete, requests, concurrency=len(requests)))

    return asyncio.run(together())


@contextmanager
def opened(folder: Path | str, **options: Any) -> Iterator[Any]:
    engine = open_engine(str(folder), **options)
    try:
        yield engine
    finally:
        asyncio.run(engine.aclose())


def assert_same(completion: Completion, expected: Expected) -> None:
    assert completion.ids == tuple(expected.ids)
    assert completion.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_in_a_batch_are_those_of_the_plain_model(
    kind: str, folders: dict[str, Path]
) -> None:
    model = models.load_model(folders[kind])
    requests = [ask(word * (i + 1), max_tokens=6 + 3 * i) for i, word in enumerate(WORDS)]
    requests += [ask(WORDS[0], max_tokens=9, presence_penalty=2.5)]
    with opened(folders[kind], max_batch=4) as engine:  # fewer places than requests
        answers = run(engine, *requests)
    for request, answer in zip(requests, answers, strict=True):
        ids = rendered(folders[kind], request.messages)
        assert request.sampling.max_tokens is not None
        expected = greedy(
            model, ids, request.sampling.max_tokens, request.sampling.presence_penalty
        )
        assert_same(answer, expected)
        assert answer.usage.prompt_tokens == len(ids) == engine.count_tokens(request.messages)
        assert answer.usage.generated_tokens == len(expected.ids)
        assert answer.tokens is not None
        assert "".join(answer.tokens) == answer.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_growing_transcript_costs_its_new_tokens(kind: str, folders: dict[str, Path]) -> None:
    model = models.load_model(folders[kind])
    said = ["tell me of the sea " * 8]
    with opened(folders[kind]) as engine, counted(engine) as fed:
        before = 0  # tokens of the last prompt and answer
        for round_ in range(5):
            request = ask(*said, max_tokens=12)
            fed.clear()
            [answer] = run(engine, request)
            ids = rendered(folders[kind], request.messages)
            assert_same(answer, greedy(model, ids, 12))
            assert (
                sum(fed)
                == len(ids) - answer.usage.cached_tokens + answer.usage.generated_tokens - 1
            )
            if round_:
                # The last token of an answer was never fed; everything before it was.
                assert answer.usage.cached_tokens >= before - 1
            before = len(ids) + answer.usage.generated_tokens
            said += [answer.text, f"more of the {round_}th sea"]


@pytest.mark.parametrize("kind", KINDS)
def test_conversations_share_the_system_message(kind: str, folders: dict[str, Path]) -> None:
    long = Message("system", "You are a helpful engine of a few words. " * 10)
    model = models.load_model(folders[kind])
    with opened(folders[kind]) as engine:
        for i, question in enumerate(["first", "second", "a third one"]):
            request = Request(
                (long, Message("user", question)),
                Sampling(max_tokens=8, temperature=0.0),
                top_logprobs=0,
            )
            [answer] = run(engine, request)
            ids = rendered(folders[kind], request.messages)
            assert_same(answer, greedy(model, ids, 8))
            assert (answer.usage.cached_tokens > 200) == (i > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_that_part_from_earlier_ones_anywhere(kind: str, folders: dict[str, Path]) -> None:
    """Whatever is kept of other conversations, the answer is that of a fresh model."""
    model = models.load_model(folders[kind])
    conversations = [
        ("one two three", "four", "five"),
        ("one two three", "four", "five and more"),
        ("one two three", "fo", "five"),
        ("one two", "four", "five"),
        ("one two three",),
        ("one two three", "four", "five", "six", "seven"),
        ("one two three", "four", "five"),
    ]
    with opened(folders[kind]) as engine:
        for contents in conversations:
            request = ask(*contents, max_tokens=5)
            [answer] = run(engine, request)
            assert_same(answer, greedy(model, rendered(folders[kind], request.messages), 5))


@pytest.mark.parametrize("kind", KINDS)
def test_long_prompts_pass_in_pieces_while_others_are_written(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanol.engines.checkpoint._worker._CHUNK", 16)
    model = models.load_model(folders[kind])
    requests = [ask("abc " * n, max_tokens=40) for n in (1, 60, 30)]
    with opened(folders[kind]) as engine, counted(engine) as fed:
        answers = run(engine, *requests)
    assert max(fed) <= 16
    for request, answer in zip(requests, answers, strict=True):
        assert_same(answer, greedy(model, rendered(folders[kind], request.messages), 40))


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_forgets_when_it_is_full(kind: str, folders: dict[str, Path]) -> None:
    request = ask("abc " * 50, max_tokens=4)
    with opened(folders[kind], cache_bytes=0) as engine:
        first, second = run(engine, request)[0], run(engine, request)[0]
    assert first == second
    assert second.usage.cached_tokens == 0
    with opened(folders[kind]) as engine:
        run(engine, request)
        [again] = run(engine, request)
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1 or kind in RECURRENT
    assert again.usage.cached_tokens > again.usage.prompt_tokens - 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_its_answer_whoever_else_is_there(kind: str, folders: dict[str, Path]) -> None:
    requests = [ask(w, max_tokens=25, temperature=1.3, top_p=0.9, seed=7) for w in WORDS]
    with opened(folders[kind]) as engine:
        alone = [run(engine, request)[0] for request in requests]
    with opened(folders[kind]) as engine:
        together = run(engine, *requests, *requests[:3])
    for one, other in zip([*alone, *alone[:3]], together, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    with opened(folders[kind]) as engine:
        seeds = [ask(WORDS[0], max_tokens=25, temperature=1.3, seed=seed) for seed in range(6)]
        assert len({answer.text for answer in run(engine, *seeds)}) > 3


def test_log_probabilities_are_of_the_distribution_drawn_from(folders: dict[str, Path]) -> None:
    model = models.load_model(folders["llama"])
    request = ask(
        "the sea", max_tokens=30, temperature=0.7, top_p=0.6, presence_penalty=0.8, seed=3
    )
    with opened(folders["llama"]) as engine:
        [answer] = run(engine, request)
    ids = rendered(folders["llama"], request.messages)
    assert answer.ids is not None
    new: list[int] = []
    expected = []
    for token in answer.ids:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids + new])).logits[0, -1].double()
            logits[sorted(set(new))] -= 0.8
        p = (logits / 0.7).softmax(-1)
        order = p.argsort(descending=True)
        kept = order[: int((p[order].cumsum(0) < 0.6).sum()) + 1]
        assert token in kept.tolist()
        expected.append(float((p[token] / p[kept].sum()).log()))
        new.append(token)
    assert answer.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rollouts_are_those_of_a_plain_pass(kind: str, folders: dict[str, Path]) -> None:
    """What a trainer compares its own log-probabilities with, while others come and go."""
    model = models.load_model(folders[kind])

    async def conversation(engine: Any, number: int) -> list[Completion]:
        said, answers = [WORDS[number % len(WORDS)] * (1 + number % 3)], []
        for round_ in range(4):
            await asyncio.sleep(0.002 * number)
            limit = 3 + (number * 7 + round_ * 5) % 11
            request = ask(
                *said, max_tokens=limit, temperature=1.0, top_p=1.0, seed=number, stop=("zz", "0")
            )
            answer = await engine.complete(request)
            said += [answer.text, f"seen {round_} " * (1 + (number + round_) % 4)]
            answers.append(answer)
        return answers

    async def all_of_them(engine: Any) -> list[list[Completion]]:
        return await asyncio.gather(*(conversation(engine, number) for number in range(10)))

    with opened(folders[kind], max_batch=7) as engine:
        answers = [answer for one in asyncio.run(all_of_them(engine)) for answer in one]
    assert sum(answer.usage.cached_tokens for answer in answers) > 30 * 20
    for answer in answers:
        assert answer.prompt_ids is not None
        assert answer.ids is not None
        ids = [*answer.prompt_ids, *answer.ids]
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        places = torch.arange(len(answer.prompt_ids) - 1, len(ids) - 1)
        expected = logprobs[places, torch.tensor(answer.ids, dtype=torch.long)]
        assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_prompt_ids_are_told_with_log_probabilities(folders: dict[str, Path]) -> None:
    with_them, without = (
        ask("the sea", max_tokens=2),
        ask("the sea", max_tokens=2, top_logprobs=None),
    )
    with opened(folders["llama"]) as engine:
        answers = run(engine, with_them, without)
    assert answers[0].prompt_ids == tuple(rendered(folders["llama"], with_them.messages))
    assert answers[1].prompt_ids is None


@pytest.mark.parametrize("kind", KINDS)
def test_after_weights_have_changed_nothing_of_before_is_used(
    kind: str, folders: dict[str, Path]
) -> None:
    model, text = models.load(folders[kind])
    request = ask("tell me of the sea " * 4, max_tokens=6)
    engine = CheckpointEngine(model, text)
    run(engine, request)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.3
    engine.forget()
    [answer] = run(engine, request)
    [again] = run(engine, request)
    asyncio.run(engine.aclose())
    assert answer.usage.cached_tokens == 0
    assert again.usage.cached_tokens > 0
    for one in (answer, again):
        assert_same(one, greedy(model, rendered(folders[kind], request.messages), 6))


def test_what_was_begun_before_weights_changed_is_not_kept(folders: dict[str, Path]) -> None:
    async def around_a_change(engine: Any) -> Completion:
        started = threading.Event()
        hook = engine._worker._model.register_forward_hook(lambda *_: started.set())
        long = asyncio.create_task(engine.complete(ask("the sea", max_tokens=200)))
        await asyncio.to_thread(started.wait)
        hook.remove()
        engine.forget()
        await long
        return await engine.complete(ask("the sea", max_tokens=2))

    with opened(folders["llama"]) as engine:
        assert asyncio.run(around_a_change(engine)).usage.cached_tokens == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_beginning_is_computed_once_for_all_who_ask_at_once(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanol.engines.checkpoint._worker._CHUNK", 64)
    system = Message("system", "You are a helpful engine of a few words. " * 12)
    requests = [
        Request(
            (system, Message("user", word)), Sampling(max_tokens=5, temperature=0.0), top_logprobs=0
        )
        for word in WORDS
    ]
    model = models.load_model(folders[kind])
    with opened(folders[kind]) as engine, counted(engine) as fed:
        answers = run(engine, *requests)
    lengths = [answer.usage.prompt_tokens for answer in answers]
    assert min(lengths) > 300
    assert sum(fed) < 2 * max(lengths)
    for request, answer in zip(requests, answers, strict=True):
        assert_same(answer, greedy(model, rendered(folders[kind], request.messages), 5))


def test_many_answers_are_written_in_few_passes(folders: dict[str, Path]) -> None:
    requests = [ask(f"{i} the sea", max_tokens=20, seed=i) for i in range(60)]
    with opened(folders["llama"], max_batch=64) as engine, counted(engine) as fed:
        run(engine, *requests)
    assert len(fed) < 3 * 20 + 60  # 1200 of one after another


def test_draws_follow_the_distribution(folders: dict[str, Path]) -> None:
    model = models.load_model(folders["llama"])
    request = ask("the sea", max_tokens=1, temperature=1.0, top_p=1.0)
    ids = rendered(folders["llama"], request.messages)
    with torch.inference_mode():
        p = model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1)
    draws = 400
    with opened(folders["llama"], max_batch=64) as engine:
        many = [
            Request(request.messages, Sampling(max_tokens=1, temperature=1.0, top_p=1.0, seed=seed))
            for seed in range(draws)
        ]
        drawn = [answer.ids for answer in run(engine, *many)]
    first = torch.tensor([ids[0] for ids in drawn if ids])
    count = first.bincount(minlength=len(p)).double()
    likely = p > 0.02
    deviation = (count - draws * p)[likely] / (draws * p * (1 - p))[likely].sqrt()
    assert deviation.abs().max() < 4.5  # standard deviations


def test_stop_strings_end_an_answer_wherever_tokens_begin(folders: dict[str, Path]) -> None:
    with opened(folders["llama"]) as engine:
        [whole] = run(engine, ask("hello", max_tokens=40))
        assert whole.tokens is not None
        assert whole.logprobs is not None
        for first in range(5, 30):
            middle = "".join(whole.tokens[first : first + 3])  # over several tokens
            at = whole.text.index(middle)
            later = whole.text[at + 2 : at + 6]  # would end later
            if whole.text.index(later) > at:
                break
        [cut] = run(engine, ask("hello", max_tokens=40, stop=(later, middle, "not there", "")))
    assert cut.text == whole.text[:at]
    assert cut.finish_reason == "stop"
    assert cut.tokens is not None
    assert "".join(cut.tokens) == cut.text
    assert cut.usage.generated_tokens == len(cut.tokens) == len(cut.logprobs or ())
    assert cut.logprobs == pytest.approx(whole.logprobs[: cut.usage.generated_tokens], abs=1e-4)


def test_the_next_prompt_goes_on_from_before_a_stop_string(folders: dict[str, Path]) -> None:
    """Recurrent states saw the stop string; the transcript does not have it."""
    with opened(folders["kimi"]) as engine:
        [whole] = run(engine, ask("hello", max_tokens=40))
        assert whole.tokens is not None
        stop = "".join(whole.tokens[20:23])
        request = ask("hello", max_tokens=40, stop=(stop,))
    with opened(folders["kimi"]) as engine:
        [cut] = run(engine, request)
        follow = ask("hello", cut.text, "go on", max_tokens=8)
        [answer] = run(engine, follow)
        assert (
            answer.usage.cached_tokens >= cut.usage.prompt_tokens + cut.usage.generated_tokens - 1
        )
        ids = rendered(folders["kimi"], follow.messages)
    assert_same(answer, greedy(models.load_model(folders["kimi"]), ids, 8))


def test_an_end_token_ends_an_answer_and_counts(folders: dict[str, Path]) -> None:
    model, text = models.load(folders["llama"])
    request = ask("hello", max_tokens=30)
    free = greedy(model, rendered(folders["llama"], request.messages), 30).ids
    end = free[12]
    model.generation_config.eos_token_id = [end, text.eos_token_id]
    engine = CheckpointEngine(model, text)
    [answer] = run(engine, request)
    asyncio.run(engine.aclose())
    first = free.index(end)
    assert answer.ids == tuple(free[: first + 1])
    assert answer.finish_reason == "stop"
    assert answer.usage.generated_tokens == first + 1
    assert answer.tokens is not None
    assert answer.tokens[-1] == ""
    assert answer.text == text.decode(free[:first])


@pytest.fixture(scope="module")
def merged(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Kimi checkpoint with heads that choose for every token."""
    base, text = models.load(folders["kimi"])
    model = autodeco.AutoDecoForCausalLM.from_base(base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.head_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("autodeco") / "merged"
    model.save_pretrained(folder)
    text.save_pretrained(folder)
    return folder


def test_heads_choose_where_a_request_leaves_them_to(merged: Path) -> None:
    model = autodeco.AutoDecoForCausalLM.from_pretrained(merged)
    requests = [ask(w, max_tokens=20, temperature=None, seed=i) for i, w in enumerate(WORDS)]
    with opened(merged) as engine:
        answers = run(engine, *requests)
    chosen = set()
    for request, answer in zip(requests, answers, strict=True):
        ids = rendered(merged, request.messages)
        assert answer.ids is not None
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([ids + list(answer.ids)]))
        places = range(len(ids) - 1, len(ids) + len(answer.ids) - 1)
        logprob = out.logits[0].double().log_softmax(-1)
        chosen |= {round(float(out.temperature[0, place]), 3) for place in places}
        expected = [float(logprob[place, t]) for place, t in zip(places, answer.ids, strict=True)]
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)
    assert len(chosen) > 10


def test_numbers_in_a_request_take_the_heads_place(merged: Path, folders: dict[str, Path]) -> None:
    static = [ask(w, max_tokens=15, temperature=0.8, top_p=0.9, seed=1) for w in WORDS]
    with opened(merged) as with_heads, opened(folders["kimi"]) as without:
        both = [run(engine, *static) for engine in (with_heads, without)]
    assert [answer.ids for answer in both[0]] == [answer.ids for answer in both[1]]


def test_the_bundled_models_answer_with_chatml() -> None:
    async def ask_both() -> None:
        for name in ("tiny", "tiny-autodeco"):
            engine = open_engine(f"chatml:{name}")
            answer = await engine.complete(
                Request((Message("user", "def add(a, b):"),), Sampling(max_tokens=12, seed=0))
            )
            assert answer.usage.generated_tokens <= 12
            assert engine.context_window == 8192
            assert engine.name == f"chatml:{name}"
            await engine.aclose()

    asyncio.run(ask_both())


def test_chatml_ends_where_a_model_writes_its_end(tmp_path: Path) -> None:
    folder = checkpoint("llama", tmp_path / "base", template=None)
    model, text = models.load(folder)
    engine = CheckpointEngine(model, text, chat_template="chatml")
    rendered_ = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert engine.count_tokens([Message("user", "hi")]) == len(text(rendered_).input_ids)
    task = asyncio.run(engine._answers(ask("hi")))  # private: no request shows its stop texts
    assert task.sampling.stop == ("<|im_end|>",)


def test_a_checkpoint_without_a_template_says_what_to_do(tmp_path: Path) -> None:
    folder = checkpoint("llama", tmp_path / "base", template=None)
    with opened(folder) as engine:
        with pytest.raises(EngineError, match=r"no chat template.*'chatml:"):
            run(engine, ask("hi"))
        with pytest.raises(EngineError, match="no chat template"):
            engine.count_tokens([Message("user", "hi")])


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}",
        "{{ 'long' * 9999999 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ 2 ** (2 ** 40) }}",
        "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ 1 | round(-(10 ** 9)) }}{{ messages[9].role }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x~n.x %}{% endfor %}",
    ],
    ids=[
        "loops",
        "text",
        "length",
        "recursion",
        "product",
        "width",
        "format",
        "power",
        "number",
        "round",
        "doubled",
    ],
)
def test_a_template_cannot_go_on_for_ever(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hanol.models import _templates  # private: its limit of five seconds

    monkeypatch.setattr(_templates, "_SECONDS", 0.5)
    folder = checkpoint("llama", tmp_path / "hostile", template=template)
    engine = CheckpointEngine(*models.load(folder))
    for _ in range(2):  # what ended the first one does not reach what comes after it
        with pytest.raises(EngineError, match="The chat template of .* refuses"):
            engine.count_tokens([Message("user", "Hello")])
        assert sum(i % 7 for i in range(300_000)) > 0
    asyncio.run(engine.aclose())


def test_a_template_that_refuses_a_conversation_says_why(folders: dict[str, Path]) -> None:
    with opened(folders["qwen3"]) as engine:
        late = (Message("user", "a"), Message("system", "b"))
        with pytest.raises(EngineError, match=r"user, system: The system message must come first"):
            run(engine, Request(late))


@pytest.mark.parametrize("kind", KINDS)
def test_the_window_bounds_prompt_and_answer(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(kind, tmp_path / kind, window=96)
    with opened(folder) as engine, counted(engine) as fed:
        assert engine.context_window == 96
        with pytest.raises(EngineError, match=r"The prompt has \d+ tokens, .* is 96"):
            run(engine, ask("too long " * 20))
        assert fed == []
        [answer] = run(engine, ask("x", max_tokens=5000))
    assert answer.finish_reason == "length"
    assert answer.usage.prompt_tokens + answer.usage.generated_tokens == 96


def test_a_cancelled_request_gives_its_place_free(folders: dict[str, Path]) -> None:
    async def both() -> Completion:
        engine = open_engine(str(folders["llama"]), max_batch=1)
        started = threading.Event()
        embedding = engine._worker._model.get_input_embeddings()  # type: ignore[attr-defined]
        embedding.register_forward_hook(lambda *_: started.set())
        endless = asyncio.create_task(engine.complete(ask("a", temperature=2.0, seed=1)))
        await asyncio.to_thread(started.wait)
        waiting = asyncio.create_task(engine.complete(ask("b", max_tokens=3)))
        endless.cancel()
        answer = await asyncio.wait_for(waiting, 60)
        assert endless.cancelled() or endless.done()
        await engine.aclose()
        return answer

    assert asyncio.run(both()).usage.generated_tokens == 3


@pytest.mark.parametrize("kind", ["llama", "kimi"])
def test_a_cancelled_prompt_ends_between_two_layers(kind: str, folders: dict[str, Path]) -> None:
    long, short = ask("tell me of the sea " * 20), ask("tell me of the sea", max_tokens=9)

    async def both(engine: Any) -> tuple[list[int], Completion]:
        entered, cancelled, passed = threading.Event(), threading.Event(), list[int]()

        def enter(module: Any, inputs: Any) -> None:
            passed.append(inputs[0].shape[1] if inputs else 0)
            entered.set()
            assert cancelled.wait(60)

        first = engine._worker._layers[0]  # private: where it is in its pass
        hooks = [first.register_forward_pre_hook(enter)]
        hooks += [
            layer.register_forward_pre_hook(lambda *_: passed.append(-1))
            for layer in engine._worker._layers[1:]
        ]
        task = asyncio.create_task(engine.complete(long))
        await asyncio.to_thread(entered.wait)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        cancelled.set()
        while engine._worker._running:
            await asyncio.sleep(0.01)
        for hook in hooks:
            hook.remove()
        return passed, await engine.complete(short)

    with opened(folders[kind]) as engine:
        passed, answer = asyncio.run(both(engine))
    assert len(passed) == 1
    model = models.load_model(folders[kind])
    assert_same(answer, greedy(model, rendered(folders[kind], short.messages), 9))


def test_a_failing_model_is_told_to_everyone_who_waits(folders: dict[str, Path]) -> None:
    async def many() -> None:
        engine: Any = open_engine(str(folders["llama"]), max_batch=2)
        model, calls = engine._worker._model, []
        forward = model.forward

        def broken(**inputs: Any) -> Any:
            calls.append(1)
            if len(calls) == 5:
                raise RuntimeError("out of memory")
            return forward(**inputs)

        model.forward = broken
        requests = [ask(word, max_tokens=30) for word in WORDS]
        done = await asyncio.gather(*map(engine.complete, requests), return_exceptions=True)
        assert all(isinstance(error, EngineError) for error in done)
        assert "RuntimeError: out of memory" in str(done[0])
        again = await engine.complete(requests[0])  # and the engine goes on
        assert again.usage.generated_tokens == 30
        await engine.aclose()

    asyncio.run(many())


PLACES: dict[str, Callable[[Any], tuple[Any, str]]] = {
    "beginning": lambda worker: (type(worker._rows), "put"),
    "lookup": lambda worker: (worker._store, "longest"),
    "storing": lambda worker: (worker._store, "put"),
    "leaving": lambda worker: (type(worker._rows), "drop"),
    "drawing": lambda worker: (sys.modules[type(worker._draws).__module__], "draw"),
    "forward": lambda worker: (worker._model, "forward"),
}


class Death(BaseException):
    """What no `except Exception` catches."""


def raising_once(
    monkeypatch: pytest.MonkeyPatch, place: str, engine: Any, call: int, error: BaseException
) -> None:
    """Let one call there raise."""
    owner, name = PLACES[place](engine._worker)
    real, calls = getattr(owner, name), itertools.count(1)

    def broken(*args: Any, **values: Any) -> Any:
        if next(calls) == call:
            raise error
        return real(*args, **values)

    monkeypatch.setattr(owner, name, broken)


async def gathered(engine: Any) -> list[Any]:
    """What several requests come to, more than there are places; nobody waits for ever."""
    requests = [ask(word, max_tokens=4 + i, n=1 + i % 3) for i, word in enumerate(WORDS)]
    answers = asyncio.gather(*map(engine.complete, requests), return_exceptions=True)
    return await asyncio.wait_for(answers, 60)


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("place", PLACES)
def test_no_exception_loses_a_request(
    place: str, call: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def many() -> None:
        engine: Any = open_engine(str(folders["llama"]), max_batch=2)
        raising_once(monkeypatch, place, engine, call, RuntimeError("injected"))
        done = await gathered(engine)
        failed = [one for one in done if isinstance(one, EngineError)]
        assert "RuntimeError: injected" in str(failed[0])
        assert all(isinstance(one, Completion | EngineError) for one in done)
        assert all(isinstance(one, Completion) for one in await gathered(engine))  # it goes on
        await engine.aclose()

    asyncio.run(many())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("place", PLACES)
def test_a_dying_thread_is_told_to_all_who_wait_and_to_all_who_come(
    place: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def many() -> None:
        engine: Any = open_engine(str(folders["llama"]), max_batch=2)
        raising_once(monkeypatch, place, engine, 2, Death("injected"))
        failed = [one for one in await gathered(engine) if not isinstance(one, Completion)]
        late = await gathered(engine)
        assert len(failed) >= 1
        assert len(late) == len(WORDS)
        for error in failed + late:
            assert isinstance(error, EngineError)
            assert "died of Death: injected" in str(error)
            assert isinstance(error.__cause__, Death)
        await engine.aclose()

    asyncio.run(many())


def test_closing_tells_those_who_wait(folders: dict[str, Path]) -> None:
    async def close() -> None:
        engine = open_engine(str(folders["llama"]), max_batch=1)
        tasks = [asyncio.create_task(engine.complete(ask(w, max_tokens=900))) for w in WORDS]
        await asyncio.sleep(0.05)
        await engine.aclose()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(error, EngineError) for error in done)
        assert all(isinstance(one, EngineError | Completion) for one in done)
        with pytest.raises(EngineError, match="closed"):
            await engine.complete(ask("late"))

    asyncio.run(close())


def test_one_engine_serves_one_loop_after_another(folders: dict[str, Path]) -> None:
    with opened(folders["llama"]) as engine:
        assert run(engine, ask("a", max_tokens=2)) != run(engine, ask("b", max_tokens=3))


def test_a_cache_of_unknown_layers_goes_one_at_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = tokenizer(LLAMA)
    model = models.build(
        MistralConfig(
            vocab_size=len(text), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, sliding_window=16,
            max_position_embeddings=512, bos_token_id=None, eos_token_id=text.eos_token_id,
        ),
        seed=3,
    ).eval()  # fmt: skip
    with caplog.at_level(logging.WARNING):
        engine = CheckpointEngine(model, text)
    assert "one after another" in caplog.text
    models.save(model, tmp_path / "mistral", tokenizer=text)
    requests = [ask(word, max_tokens=10) for word in WORDS[:3]]
    for request, answer in zip(requests, run(engine, *requests), strict=True):
        ids = rendered(tmp_path / "mistral", request.messages)
        assert len(ids) > 16
        assert_same(answer, greedy(model, ids, 10))
    asyncio.run(engine.aclose())


@pytest.mark.parametrize("kind", ["llama", "qwen3", "kimi"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_weights_of_fewer_bits_answer_alike_in_any_batch(
    kind: str, dtype: str, folders: dict[str, Path]
) -> None:
    requests = [ask(word, max_tokens=8) for word in WORDS]
    with opened(folders[kind], dtype=dtype) as engine:
        together = run(engine, *requests)
    with opened(folders[kind], dtype=dtype) as engine:
        alone = [run(engine, request)[0] for request in requests]
    assert [one.ids for one in together] == [one.ids for one in alone]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4", "auto"])
@pytest.mark.parametrize("name", ["tiny", "tiny-researcher"])
def test_bundled_models_take_weights_of_fewer_bits(name: str, dtype: str) -> None:
    ids = models.load_tokenizer(name)("def mean(values):").input_ids
    request = Request((), prompt_ids=tuple(ids), sampling=Sampling(max_tokens=6))
    with opened(name, dtype=dtype) as engine:
        [found] = run(engine, request)
    assert len(found.ids) == 6


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no folder"):
        open_engine(str(tmp_path / "nothing"))


def test_a_prompt_without_tokens_is_refused(folders: dict[str, Path]) -> None:
    """Such as one of a template that writes nothing: it would wait for ever."""
    with opened(folders["llama"]) as engine:
        engine._tokenizer.chat_template = "{{ messages[9] }}"
        with pytest.raises(EngineError, match="has no tokens: its chat template writes nothing"):
            run(engine, ask("hello"))
