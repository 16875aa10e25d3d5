"""What the engine of a checkpoint can do besides completing: each against the plain model."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hanol import autodeco, models
from hanol.engines import (
    CheckpointEngine,
    Completion,
    Constraint,
    ImagePart,
    Message,
    Piece,
    Request,
    Sampling,
    TextPart,
    ToolCall,
    open_engine,
)
from hanol.errors import EngineError
from hanol.runs import synchronous
from hanol.tools import ToolSpec

from .conftest import KINDS, LLAMA, checkpoint

USER = (Message("system", "Be brief."), Message("user", "tell me of the sea " * 3))
TOOLED = LLAMA.replace(
    "{% for m in messages %}",
    "{% if tools %}<|start|>tools\n{{ tools | tojson }}<|end|>{% endif %}{% for m in messages %}",
)


def ask(n: int = 1, **values: Any) -> Request:
    more = {
        key: values.pop(key)
        for key in ("prefill", "constraint", "top_logprobs", "tools", "prompt_ids")
        if key in values
    }
    messages = () if "prompt_ids" in more else USER
    return Request(messages, Sampling(**{"max_tokens": 12, **values}), n=n, **more)


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> Any:
    """One engine of each kind, with what it runs; all in one module, so that they warm up once."""
    made: dict[str, tuple[CheckpointEngine, Any, Any]] = {}
    for kind in KINDS:
        model, text = models.load(folders[kind])
        made[kind] = CheckpointEngine(model, text, name=kind), model, text
    base, text = models.load(folders["kimi"])
    heads = autodeco.AutoDecoForCausalLM.from_base(base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in heads.head_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    made["heads"] = CheckpointEngine(heads, text, name="heads"), heads, text
    soft = autodeco.AutoDecoForCausalLM.from_base(models.load(folders["llama"])[0])
    soft.config.autodeco_truncation = "soft"
    made["soft"] = CheckpointEngine(soft, text, name="soft"), soft, text
    yield made
    for engine, _, _ in made.values():
        asyncio.run(engine.aclose())


ALL = [*KINDS, "heads", "soft"]


def complete(engine: CheckpointEngine, request: Request) -> Completion:
    return synchronous(engine.complete)(request)


@pytest.mark.parametrize("kind", ALL)
def test_n_answers_are_those_of_n_requests_with_seeds_in_a_row(kind: str, engines: Any) -> None:
    engine, _, _ = engines[kind]
    together = complete(engine, ask(4, seed=3, temperature=1.2, top_logprobs=0))
    alone = [
        complete(engine, ask(seed=3 + i, temperature=1.2, top_logprobs=0)).choices[0]
        for i in range(4)
    ]
    assert [one.text for one in together.choices] == [one.text for one in alone]
    for one, other in zip(together.choices, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert len({one.text for one in together.choices}) > 1
    assert together.usage.generated_tokens == sum(len(c.ids or ()) for c in together.choices)


@pytest.mark.parametrize("kind", KINDS)
def test_n_answers_share_one_prompt_pass(kind: str, folders: dict[str, Path]) -> None:
    model, text = models.load(folders[kind])
    engine = CheckpointEngine(model, text, cache_bytes=0)  # nothing is kept of before
    fed: list[int] = []
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, out: fed.append(inputs[0].numel())
    )
    done = complete(engine, ask(5, seed=0, max_tokens=6))
    asyncio.run(engine.aclose())
    # The prompt but its last token once; that token and the answers but their last for each.
    assert sum(fed) == done.usage.prompt_tokens - 1 + done.usage.generated_tokens


@pytest.mark.parametrize("kind", ALL)
def test_pieces_are_the_text(kind: str, engines: Any) -> None:
    engine, _, _ = engines[kind]
    for stop in ((), ("a", "the "), ("9",)):
        request = ask(3, seed=5, temperature=1.5, max_tokens=40, stop=stop)
        whole = complete(engine, request)
        pieces: list[Piece] = list(synchronous(engine.stream)(request))
        assert [p.completion is None for p in pieces] == [True] * (len(pieces) - 1) + [False]
        last = pieces[-1].completion
        assert last is not None  # the second time its prompt is known, and read faster
        assert replace(last, usage=whole.usage) == whole
        for i, choice in enumerate(whole.choices):
            assert "".join(p.text for p in pieces if p.choice == i) == choice.text
        assert len(pieces) > 6 or stop


def test_who_stops_listening_frees_the_place(folders: dict[str, Path]) -> None:
    async def first_piece_only() -> Completion:
        model, text = models.load(folders["llama"])
        engine = CheckpointEngine(model, text, max_batch=1)
        endless = engine.stream(ask(seed=1, temperature=2.0, max_tokens=900))
        async for _ in endless:
            break
        await endless.aclose()
        try:
            return await asyncio.wait_for(engine.complete(ask(max_tokens=3)), 60)
        finally:
            await engine.aclose()

    assert len(asyncio.run(first_piece_only()).ids or ()) == 3


@pytest.mark.parametrize("kind", ALL)
def test_scores_are_those_of_the_plain_model(kind: str, engines: Any) -> None:
    engine, model, text = engines[kind]
    rendered = text.apply_chat_template(
        [m.to_dict() for m in USER], tokenize=False, add_generation_prompt=True
    )
    prompt = text(rendered, add_special_tokens=False).input_ids
    after = ["abba", (3, 4, 5), "a 1000 and more of the sea " * 12, "x"]
    done = synchronous(engine.score)(ask(prefill="so"), after)
    prompt += text("so", add_special_tokens=False).input_ids
    for continuation, scored in zip(after, done, strict=True):
        ids = list(continuation) if isinstance(continuation, tuple) else text(
            continuation, add_special_tokens=False
        ).input_ids  # fmt: skip
        assert list(scored.ids) == ids
        options = {"apply": "off"} if kind in ("heads", "soft") else {}
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([prompt + ids]), **options)
        logprobs = out.logits[0].double().log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(ids) - 1)
        expected = [float(logprobs[place, t]) for place, t in zip(places, ids, strict=True)]
        assert scored.logprobs == pytest.approx(expected, abs=1e-4)
        assert scored.logprob == pytest.approx(sum(expected), abs=1e-3)


def test_continuations_share_one_prompt_pass(folders: dict[str, Path]) -> None:
    model, text = models.load(folders["qwen3"])
    engine = CheckpointEngine(model, text, cache_bytes=0)
    fed: list[int] = []
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, out: fed.append(inputs[0].numel())
    )
    synchronous(engine.score)(ask(), ["xx", "yy", "zz"])
    asyncio.run(engine.aclose())
    prompt = engine.count_tokens(USER)
    assert sum(fed) == prompt - 1 + 3 * 2  # the prompt's last token and one of each continuation


def test_scores_come_while_others_write(engines: Any) -> None:
    engine, _, _ = engines["kimi"]

    async def both() -> Any:
        requests = [engine.complete(ask(2, seed=i, max_tokens=30)) for i in range(4)]
        scores = [engine.score(ask(), ["one two three", "x"]) for _ in range(3)]
        return await asyncio.gather(*requests, *scores)

    done = asyncio.run(both())
    alone = synchronous(engine.score)(ask(), ["one two three", "x"])
    for scores in done[4:]:
        for one, other in zip(scores, alone, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_continuations_that_cannot_be_scored(engines: Any) -> None:
    engine, _, _ = engines["llama"]
    assert synchronous(engine.score)(ask(), []) == []
    with pytest.raises(EngineError, match="A continuation is empty"):
        synchronous(engine.score)(ask(), ["a", ""])
    with pytest.raises(EngineError, match="context window of 'llama' is 1024"):
        synchronous(engine.score)(ask(), ["sea " * 800])


def test_a_prefill_is_gone_on_from_and_ids_are_a_prompt(engines: Any) -> None:
    engine, _, text = engines["qwen3"]
    rendered = text.apply_chat_template(
        [m.to_dict() for m in USER], tokenize=False, add_generation_prompt=True
    )
    ids = tuple(text(rendered + "so it is", add_special_tokens=False).input_ids)
    prefilled = complete(engine, ask(temperature=0.0, prefill="so it is", top_logprobs=0))
    by_ids = complete(engine, ask(temperature=0.0, prompt_ids=ids, top_logprobs=0))
    assert prefilled.prompt_ids == by_ids.prompt_ids == ids
    assert prefilled.choices[0].ids == by_ids.choices[0].ids


def test_the_likeliest_tokens_are_told(engines: Any) -> None:
    engine, _, _ = engines["llama"]
    [choice] = complete(engine, ask(temperature=0.0, top_logprobs=3, max_tokens=5)).choices
    assert choice.top_logprobs is not None
    assert choice.tokens is not None
    for token, logprob, best in zip(
        choice.tokens, choice.logprobs or (), choice.top_logprobs, strict=True
    ):
        assert len(best) == 3
        assert best[0] == (token, pytest.approx(logprob, abs=1e-6))
        assert [one for _, one in best] == sorted((one for _, one in best), reverse=True)


def test_penalties_and_top_k(engines: Any) -> None:
    engine, model, _ = engines["llama"]
    greedy = complete(engine, ask(temperature=0.0, max_tokens=20))
    one = complete(engine, ask(temperature=1.5, top_k=1, seed=0, max_tokens=20))
    assert one.ids == greedy.ids
    often = complete(engine, ask(temperature=0.0, frequency_penalty=50.0, max_tokens=20))
    assert often.ids is not None
    assert len(set(often.ids)) == len(often.ids)
    request = ask(temperature=0.0, repetition_penalty=1.8, max_tokens=8, top_logprobs=0)
    answer = complete(engine, request)
    assert answer.prompt_ids is not None
    ids = list(answer.prompt_ids)
    for token in answer.ids or ():
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
        seen = torch.tensor(sorted(set(ids)))
        logits[seen] = torch.where(logits[seen] > 0, logits[seen] / 1.8, logits[seen] * 1.8)
        assert token == int(logits.argmax())
        ids.append(token)


# -- tools


def test_tools_are_rendered_and_calls_read(tmp_path: Path) -> None:
    model, text = models.load(checkpoint("llama", tmp_path / "tools", template=TOOLED))
    engine = CheckpointEngine(model, text)
    tool = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
    call = {"x-guidance": {"whitespace_flexible": False, "key_separator": ": "},
        "type": "object", "properties": {"name": {"const": "add"}, "arguments": {
        "type": "object", "properties": {"a": {"type": "integer", "maximum": 9, "minimum": 0}},
        "required": ["a"], "additionalProperties": False}},
        "required": ["name", "arguments"], "additionalProperties": False}  # fmt: skip
    grammar = f'start: "<tool_call>" call "</tool_call>"\ncall: %json {json.dumps(call)}'
    request = ask(tools=(tool,), constraint=Constraint.grammar(grammar), max_tokens=100, seed=1)
    done = complete(engine, Request(**{**request.__dict__, "top_logprobs": 0}))
    asyncio.run(engine.aclose())
    [read] = done.tool_calls
    assert read.name == "add"
    assert read.arguments["a"] in range(10)
    assert '"name": "add"' in text.decode(done.prompt_ids)


@pytest.mark.parametrize("token", [999999, -1, 1.5, "a"])
def test_a_wrong_token_fails_its_own_request_only(token: Any, engines: Any) -> None:
    engine, _, _ = engines["llama"]

    async def together() -> None:
        good = asyncio.create_task(engine.complete(ask(max_tokens=30)))
        with pytest.raises(EngineError, match=f"{token!r} is not a token of 'llama'"):
            await engine.complete(ask(prompt_ids=(token,)))
        with pytest.raises(EngineError, match=f"{token!r} is not a token of 'llama'"):
            await engine.score(ask(), [[token]])
        assert (await good).choices[0].ids  # its first token may be the end

    asyncio.run(together())


def test_a_template_without_tools_says_so(engines: Any) -> None:
    engine, _, _ = engines["llama"]
    with pytest.raises(EngineError, match="does not tell the model of `tools`"):
        complete(engine, ask(tools=(ToolSpec("add", "Adds.", {"type": "object"}),)))


def test_pictures_are_refused_with_who_can(engines: Any) -> None:
    engine, _, _ = engines["llama"]
    seen = Request((Message("user", (TextPart("what?"), ImagePart(b"png"))),))
    with pytest.raises(EngineError, match=r"cannot read images; an endpoint whose model takes"):
        complete(engine, seen)


def test_calls_that_are_no_json() -> None:
    from hanol.engines._calls import read_calls  # private: no small model writes these by chance

    text = "<think><tool_call>{}</tool_call></think>" + "".join(
        f"<tool_call>{block}</tool_call>"
        for block in ('{"name": "a", "arguments": "{}"}', '{"name": 1}', "[]", "{",
                      '{"name": "b", "arguments": [1]}')
    )  # fmt: skip
    assert read_calls(text) == (ToolCall("a", {}, "call_0"), ToolCall("b", {}, "call_4", "[1]"))


# -- constraints

NAMES = st.sampled_from(["a", "bc", "the"])
LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.tuples(st.integers(-20, 20), st.integers(0, 30)).map(
        lambda x: {"type": "integer", "minimum": x[0], "maximum": x[0] + x[1]}
    ),
    st.lists(st.sampled_from(["x", "yes", "a b", '"']), min_size=1, unique=True).map(
        lambda x: {"enum": x}
    ),
    st.integers(0, 6).map(lambda n: {"type": "string", "maxLength": n}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
            lambda x: {"type": "array", "items": x[0], "minItems": x[1], "maxItems": x[1] + x[2]}
        ),
        st.dictionaries(NAMES, inner, max_size=3).map(
            lambda x: {"type": "object", "properties": x, "required": sorted(x),
                       "additionalProperties": False}
        ),
    ),
    max_leaves=4,
)  # fmt: skip
PATTERNS = st.recursive(
    st.sampled_from(["a", "[0-9]", "the", "[a-c ]", r"\.", "x?"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda x: f"({x[0]}|{x[1]})"),
        inner.map(lambda x: f"({x}){{1,3}}"),
    ),
    max_leaves=5,
)
FEW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("kind", ["qwen3", "kimi", "heads", "soft"])
@FEW
@given(schema=SCHEMAS, seed=st.integers(0, 99), n=st.integers(1, 3))
def test_answers_fit_their_schema(
    kind: str, schema: dict[str, Any], seed: int, n: int, engines: Any
) -> None:
    engine, _, _ = engines[kind]
    constraint = Constraint.json_schema(schema)
    request = ask(n, constraint=constraint, seed=seed, max_tokens=400, top_logprobs=0)
    done = complete(engine, request)
    for choice in done.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.text), schema)
        assert choice.tokens is not None
        assert "".join(choice.tokens) == choice.text
        assert all(logprob <= 1e-9 for logprob in choice.logprobs or ())
    pieces = list(synchronous(engine.stream)(request))
    assert "".join(p.text for p in pieces if p.choice == 0) == done.text


@pytest.mark.parametrize("kind", ["llama", "lfm2", "heads"])
@FEW
@given(pattern=PATTERNS, seed=st.integers(0, 99))
def test_answers_match_their_pattern(kind: str, pattern: str, seed: int, engines: Any) -> None:
    engine, _, _ = engines[kind]
    request = ask(2, constraint=Constraint.regex(pattern), seed=seed, top_p=0.8, max_tokens=200)
    for choice in complete(engine, request).choices:
        assert choice.finish_reason == "stop"
        assert re.fullmatch(pattern, choice.text)


def test_limits_and_stop_strings_end_a_constrained_answer_too(engines: Any) -> None:
    engine, _, _ = engines["llama"]
    constraint = Constraint.regex("[ab]{20}9[ab]{20}")
    cut = complete(engine, ask(constraint=constraint, seed=0, max_tokens=7))
    assert cut.finish_reason == "length"
    assert len(cut.ids or ()) == 7
    stopped = complete(engine, ask(constraint=constraint, seed=0, max_tokens=99, stop=("9",)))
    assert stopped.finish_reason == "stop"
    assert re.fullmatch("[ab]{20}", stopped.text)


def test_what_can_only_come_next_needs_no_pass_of_its_own(folders: dict[str, Path]) -> None:
    model, text = models.load(folders["llama"])
    engine, passes = CheckpointEngine(model, text), []
    model.register_forward_hook(lambda *_: passes.append(1))
    constraint = Constraint.grammar('start: "the sea is wide and " ("blue" | "red") " as ever"')
    done = complete(engine, ask(constraint=constraint, seed=0, max_tokens=99))
    asyncio.run(engine.aclose())
    assert done.text in ("the sea is wide and blue as ever", "the sea is wide and red as ever")
    assert len(passes) < len(done.ids or ()) / 3


def test_a_wrong_constraint_fails_its_own_request_only(engines: Any) -> None:
    engine, _, _ = engines["llama"]

    async def both() -> list[Any]:
        wrong = [
            Constraint.regex("("),
            Constraint.grammar("begin: x"),
            Constraint("json_schema", "{"),
            Constraint.json_schema({"type": "colour"}),
        ]
        asked = [engine.complete(ask(constraint=one)) for one in wrong]
        return await asyncio.gather(
            engine.complete(ask(max_tokens=30)), *asked, return_exceptions=True
        )

    right, *wrong = asyncio.run(both())
    assert isinstance(right, Completion)
    assert all(isinstance(one, EngineError) for one in wrong), wrong
    assert "regular expression" in str(wrong[0])


def test_a_tokenizer_of_words_takes_no_constraint() -> None:
    engine = open_engine("tiny-researcher")
    assert not engine.capabilities & {"json_schema", "regex", "grammar"}
    request = Request((Message("user", "hi"),), constraint=Constraint.regex("[0-9]{2}"))
    with pytest.raises(EngineError, match="whose tokenizer works on bytes can"):
        asyncio.run(engine.complete(request))
