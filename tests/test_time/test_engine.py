"""An engine that thinks about each request."""

from pathlib import Path

import pytest

from hanol.engines import CachedEngine, Message, Request, Sampling
from hanol.errors import CapabilityError, ConfigError, EngineError
from hanol.runs import synchronous
from hanol.test_time import PolicyTable, ThinkingEngine, ThinkSettings, fit_policy, policy_key

from .test_run import Lengths, Words

SETTINGS = ThinkSettings(sampling=Sampling(temperature=1.0, max_tokens=24))


def ask(engine: ThinkingEngine, *messages: Message, **more: object) -> object:
    return synchronous(engine.complete)(Request(messages, **more))  # type: ignore[arg-type]


def test_it_answers_as_the_strategy_does_and_says_what_it_cost() -> None:
    words = Words()
    engine = ThinkingEngine(words, strategy="majority", budget=5, settings=SETTINGS)
    before = Message("system", "Be brief."), Message("user", "Hello"), Message("assistant", "Hi")
    completion = ask(engine, *before, Message("user", "1 + 2"))
    assert completion.text.endswith("The answer is 0.")  # the earliest of equally many
    assert len(words.requests) == 5
    assert completion.usage.generated_tokens == 5 * 6
    assert words.requests[0].messages == (*before, Message("user", "1 + 2"))
    seeds = {request.sampling.seed for request in words.requests}
    assert {ask(engine, Message("user", "x"), sampling=Sampling(seed=70)).text} != {""}
    assert seeds.isdisjoint(request.sampling.seed for request in words.requests[5:])


def test_a_policy_decides_and_that_of_another_model_is_refused() -> None:
    words = Words()
    records = [
        {"question": str(q), "difficulty": q / 9, "budget": b, "strategy": name,
         "right": float(name == "beam")}
        for q in range(10) for b in (1, 8) for name in ("majority", "beam")
    ]  # fmt: skip
    policy = fit_policy(records, key=policy_key(words, SETTINGS, "sums"))
    engine = ThinkingEngine(words, Lengths(), policy=policy, settings=SETTINGS)
    assert "The answer is" in ask(engine, Message("user", "1 + 2")).text
    assert any(request.prefill for request in words.requests)  # beams go on from steps
    other = PolicyTable(policy.entries, policy.edges, {**policy.key, "model": "another"})
    with pytest.raises(ConfigError, match="another model"):
        ThinkingEngine(words, Lengths(), policy=other, settings=SETTINGS)


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(ConfigError, match="'beam' needs a verifier"):
        ThinkingEngine(Words(), strategy="beam")
    engine = ThinkingEngine(Words(), strategy="greedy", settings=SETTINGS)
    with pytest.raises(EngineError, match="the assistant's, but a problem is the user's"):
        ask(engine, Message("user", "x"), Message("assistant", "y"))
    with pytest.raises(CapabilityError, match="prefill"):
        ask(engine, Message("user", "x"), prefill="y")


def test_streams_and_logs_take_it_as_any_engine(tmp_path: Path) -> None:
    words = Words()
    engine = ThinkingEngine(words, strategy="majority", budget=3, settings=SETTINGS)
    request = Request((Message("user", "1 + 2"),))

    async def pieces() -> list[str]:
        return [piece.text async for piece in engine.stream(request)]

    [text] = synchronous(pieces)()
    for _ in range(2):
        logged = CachedEngine(engine, tmp_path / "log.jsonl")
        assert synchronous(logged.complete)(request).text == text
    assert len(words.requests) == 6  # three for the stream, three that the log kept
