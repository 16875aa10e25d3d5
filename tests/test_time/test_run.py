"""Searches over engines: tokens, costs, resuming, and what engines cannot do."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.engines.conftest import checkpoint

from hanol.engines import (
    CachedEngine,
    CheckpointEngine,
    Completion,
    Engine,
    Message,
    Request,
    Sampling,
    Usage,
)
from hanol.errors import CapabilityError, ConfigError, DataError, EngineError
from hanol.test_time import (
    DVTS,
    AdaptiveVote,
    BeamSearch,
    BestOfN,
    BudgetForcing,
    ConfidenceVote,
    Greedy,
    JudgeVerifier,
    Majority,
    ParticleFilter,
    SequentialRevision,
    ThinkSettings,
    athink,
    render_page,
    run,
    strategy_names,
    think,
)

PROBLEM = "tell me of the sea and of what the boats do there " * 4


class Lengths:
    """Scores steps by their texts, whatever they are."""

    parameters = 100
    tokens_scored = 0

    def score(self, problem: str, steps: Sequence[str]) -> list[float]:
        self.tokens_scored += len(steps)
        return [sum(map(ord, " ".join(steps[: i + 1]))) % 97 / 97 for i in range(len(steps))]


class Words(Engine):
    """Sums written a step at a time, by chat messages and a prefill: as a server would."""

    name = "words"
    capabilities = frozenset({"prefill"})

    def __init__(self, fail_at: int = 10**9) -> None:
        self.requests: list[Request] = []
        self.fail_at = fail_at

    async def complete(self, request: Request) -> Completion:
        self.check(request)
        if len(self.requests) >= self.fail_at:
            raise EngineError("killed")
        self.requests.append(request)
        await asyncio.sleep(0)
        step = request.prefill.count("\n\n")
        digit = (request.sampling.seed or 0) % 7
        said = [f"step {step} is {digit}", "\n\n"] if step < 2 else [f"The answer is {digit}."]
        if not request.sampling.stop:
            said = [f"step 0 is {digit}\n\nThe answer is {digit}."]
        return Completion.of(said[0], usage=Usage(10, 6))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 10


@pytest.fixture(scope="module", params=["llama", "kimi"])
def engine(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckpointEngine]:
    folder = tmp_path_factory.mktemp(request.param)
    made = CheckpointEngine.load(str(checkpoint(request.param, folder)), max_batch=64)
    yield made
    asyncio.run(made.aclose())


SETTINGS = ThinkSettings(sampling=Sampling(temperature=1.0, max_tokens=24), separator="e")


def passed(engine: CheckpointEngine) -> list[int]:
    """Notes how many positions pass through the model from now on."""
    counts: list[int] = []
    model: Any = engine._model  # private: what passes through the model is the point
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.model

    def count(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        counts.append(ids.shape[0] * ids.shape[1])

    decoder.register_forward_pre_hook(count, with_kwargs=True)
    return counts


def test_shared_prefixes_pass_through_the_model_once(engine: CheckpointEngine) -> None:
    counts = passed(engine)
    search = BeamSearch(16, 4, seed=3)
    long = ThinkSettings(sampling=Sampling(temperature=1.0, max_tokens=200), separator="e")
    thought = run(search, engine, Lengths(), PROBLEM, long)
    prompt = engine.count_tokens([Message("user", PROBLEM)])
    distinct = prompt + sum(len(step.ids) for node in thought.nodes for step in node.steps)
    assert max(node.round for node in thought.nodes) > 2
    assert sum(counts) <= 1.05 * distinct + 32  # one more for each row that a stop ended


def test_a_step_goes_on_from_exactly_its_tokens(engine: CheckpointEngine) -> None:
    """Step by step or at once: the greedy solution is the same."""
    sampling = Sampling(temperature=0.0, max_tokens=40)
    ids = engine.encode((Message("user", PROBLEM),))

    async def walk() -> tuple[tuple[int, ...], str]:
        done, text = tuple[int, ...](), ""
        while len(done) < 40:
            part = Sampling(temperature=0.0, max_tokens=40 - len(done), stop=("e", "a"))
            got = await engine.complete(Request((), part, prompt_ids=ids + done, keep_stop=True))
            done, text = done + (got.ids or ()), text + got.text
        return done, text

    whole = asyncio.run(engine.complete(Request((), sampling, prompt_ids=ids)))
    assert asyncio.run(walk()) == (whole.ids, whole.text)


@pytest.mark.parametrize(
    "make",
    [Greedy, lambda: BestOfN(4), lambda: Majority(4), lambda: AdaptiveVote(4),
     lambda: BeamSearch(4, 2), lambda: BeamSearch(4, 2, 1), lambda: DVTS(4, 2),
     lambda: ParticleFilter(4), lambda: SequentialRevision(4, 2), lambda: BudgetForcing(3),
     lambda: ConfidenceVote(4, window=8, top_logprobs=4),
     lambda: ConfidenceVote(6, window=8, top_logprobs=4, online=True, warmup=2)],
)  # fmt: skip
def test_every_strategy_answers_within_its_budget(make: Any, engine: CheckpointEngine) -> None:
    thoughts = [
        run(make(), engine, Lengths(), "a sum", SETTINGS, read_answer=lambda text: text[-1:])
        for _ in range(2)
    ]
    first, second = thoughts
    assert first.nodes == second.nodes  # equal seeds, equal trees
    assert first.answer == second.answer
    spent = first.ledger
    assert spent.generated_tokens == sum(node.cost for node in first.nodes) <= first.limit
    needs = make().needs_scores
    assert (spent.verifier_tokens > 0) == needs
    prompts = spent.prompt_tokens - spent.cached_tokens + spent.generated_tokens
    model = 2.0 * engine.parameters * prompts
    assert spent.flops == pytest.approx(model + 2.0 * 100 * spent.verifier_tokens)
    assert spent.seconds > 0
    html = render_page(thoughts)
    assert html.count("<section>") == 2
    assert "<script" not in html


def test_texts_of_models_cannot_break_the_page() -> None:
    thought = think("<b>1</b> & 2?", Words(), strategy="majority", budget=2)
    object.__setattr__(thought, "answer", "<img src=x>")
    page = render_page([thought])
    assert "<b>1" not in page
    assert "<img" not in page
    assert "&lt;b&gt;1&lt;/b&gt; &amp; 2?" in page


def test_a_server_continues_texts() -> None:
    engine = Words()
    thought = run(BeamSearch(4, 2), engine, Lengths(), "a sum")
    assert re.fullmatch(r"step 0 is \d\n\nstep 1 is \d\n\nThe answer is \d\.", thought.text)
    assert thought.answer == thought.text[-2]
    assert all(request.n == 1 and request.prompt_ids is None for request in engine.requests)
    assert {request.sampling.stop for request in engine.requests} == {("\n\n",)}


def test_a_killed_search_goes_on_from_its_state(tmp_path: Path) -> None:
    whole = Words()
    expected = run(BeamSearch(8, 2), whole, Lengths(), "a sum", state=tmp_path / "whole.json")
    state = tmp_path / "state.json"
    with pytest.raises(EngineError, match="killed"):
        run(BeamSearch(8, 2), Words(fail_at=12), Lengths(), "a sum", state=state)
    rest = Words()
    again = run(BeamSearch(8, 2), rest, Lengths(), "a sum", state=state)
    assert again.nodes == expected.nodes
    assert (again.answer, again.votes) == (expected.answer, expected.votes)
    assert len(rest.requests) == len(whole.requests) - 8  # the first round was finished
    assert state.read_bytes() == (tmp_path / "whole.json").read_bytes()
    with pytest.raises(DataError, match="is the state of a search with"):
        run(BeamSearch(8, 4), Words(), Lengths(), "a sum", state=state)


def test_what_is_missing_is_named_with_what_works() -> None:
    bare = Words()
    bare.capabilities = frozenset()
    with pytest.raises(CapabilityError, match="'beam' continues .* 'words'.*best-of-n"):
        run(BeamSearch(4, 2), bare, Lengths(), "a sum")
    with pytest.raises(CapabilityError, match="'confidence' needs log-prob.*majority"):
        run(ConfidenceVote(4), bare, None, "a sum")
    with pytest.raises(ConfigError, match="'beam' needs a verifier.*majority"):
        run(BeamSearch(4, 2), Words(), None, "a sum")
    with pytest.raises(CapabilityError, match="judge .* 'words' cannot score"):
        JudgeVerifier(bare)
    assert run(Majority(3), bare, None, "a sum").answer is not None

    class Short(Lengths):
        def score(self, problem: str, steps: Sequence[str]) -> list[float]:
            return [0.5] * (len(steps) + 1)

    with pytest.raises(DataError, match="2 scores for 1 steps"):
        run(BeamSearch(4, 2), Words(), Short(), "a sum")


def test_settings_that_say_too_little_are_refused() -> None:
    for values, message in [
        ({"sampling": Sampling()}, "no `max_tokens`"),
        ({"separator": ""}, "`separator` is empty"),
        ({"template": "Solve it"}, "must contain"),
    ]:
        with pytest.raises(ConfigError, match=message):
            ThinkSettings(**values)


def test_auto_without_a_policy_is_the_adaptive_vote_and_says_so() -> None:
    thought = think("a sum", Words(), budget=8)
    assert thought.strategy == "adaptive"
    assert "no policy" in thought.note
    assert set(strategy_names()) >= {"auto", "beam", "dvts", "forcing", "confidence", "particles"}


def test_a_judge_is_asked_for_every_step(engine: CheckpointEngine) -> None:
    judge = JudgeVerifier(engine)
    thought = asyncio.run(
        athink("a sum", engine, judge, strategy="beam", budget=2, settings=SETTINGS)
    )
    scores = [score for node in thought.nodes for score in node.scores]
    assert scores
    assert all(0 <= score <= 1 for score in scores)
    assert thought.ledger.verifier_tokens > 0


def test_samples_of_one_pool_are_drawn_once(engine: CheckpointEngine, tmp_path: Path) -> None:
    """More answers of a request, or other strategies: what is known is not drawn again."""

    known = CachedEngine(engine, tmp_path / "calls.jsonl")
    small = run(BestOfN(3), known, Lengths(), "a sum", SETTINGS)
    drawn = []
    complete = engine.complete

    async def counted(request: Request) -> Completion:
        drawn.append(request.n)
        return await complete(request)

    engine.complete = counted  # type: ignore[method-assign]
    try:
        large = run(BestOfN(8), known, Lengths(), "a sum", SETTINGS)
        run(Majority(8), known, None, "a sum", SETTINGS)
        again = CachedEngine(engine, tmp_path / "calls.jsonl")
        repeated = run(BestOfN(8), again, Lengths(), "a sum", SETTINGS)
    finally:
        engine.complete = complete  # type: ignore[method-assign]
    assert drawn == [5]
    assert large.nodes[1:4] == small.nodes[1:4]
    assert repeated.nodes == large.nodes
    assert repeated.ledger.generated_tokens == large.ledger.generated_tokens
