"""Claims about research agents: their pieces, and their decision rules on made-up figures."""

import asyncio
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from claims.deep_research import lab
from claims.deep_research.heavy_mode import Agreement, agreed, heavy_verdict
from claims.deep_research.interaction_scaling import interaction_verdict
from claims.deep_research.lab import Attempt, small_agent
from claims.deep_research.markov_context import markov_verdict, prompt_growth
from claims.deep_research.merge import merge_verdict
from claims.deep_research.mid_training import mid_training_verdict
from claims.deep_research.rl_improves import rl_verdict
from claims.deep_research.short_convolution import VARIANTS, convolution_verdict
from claims.deep_research.simulated_transfers import rank_correlation, simulated_verdict
from claims.figures import Figures, gain
from hanol import models
from hanol.claims import find_claim, find_claims, run_claim
from hanol.engines import Message, Reply, Request, ScriptedEngine
from hanol.errors import RunError
from hanol.research import aheavy_research
from hanol.worlds import Encyclopedia

NAMES = [
    "heavy-mode", "interaction-scaling", "markov-context", "merge", "mid-training", "rl-improves",
    "short-convolution", "simulated-transfers",
]  # fmt: skip


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint that knows nothing: what it is asked for it cannot do, but it runs."""
    folder = tmp_path_factory.mktemp("agent") / "untrained"
    model, tokenizer = small_agent("convolution", 0)
    models.save(model, folder, tokenizer)
    return str(folder)


def test_all_of_them_are_there() -> None:
    assert [claim.id for claim in find_claims("deep-research")] == [
        f"deep-research.{name}" for name in NAMES
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_end_to_end(
    name: str, untrained: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory
) -> None:
    monkeypatch.setattr(lab, "MODEL", untrained)
    # Quick runs of one process share their work, that of the bundled model, too.
    folder = tmp_path_factory.getbasetemp() / "untrained-work"
    monkeypatch.setattr(lab, "_scratch", lambda: folder)
    result = run_claim(find_claim(f"deep-research.{name}"), (0,), quick=True).measurement
    assert all(math.isfinite(value) for value in result.figures.values())
    assert result.figures.keys() == result.spread.keys()
    assert result.verdict != "shown", "a model that has learned nothing shows nothing"


# -- pieces


def test_shapes_differ_in_the_convolution_alone() -> None:
    built = {shape: small_agent(shape, 3).model for shape in ("convolution", "plain", "hybrid")}
    shapes = {
        shape: {name: value.shape for name, value in model.state_dict().items()}
        for shape, model in built.items()
    }
    extra = shapes["convolution"].keys() - shapes["plain"].keys()
    assert len(extra) == 2
    assert all("conv1d" in name for name in extra)
    assert shapes["plain"].items() <= shapes["convolution"].items()
    sizes = {shape: model.num_parameters() for shape, model in built.items()}
    assert max(sizes.values()) < 1.4 * min(sizes.values())
    kernels = [p for n, p in built["hybrid"].named_parameters() if "conv" in n and p.dim() == 3]
    assert kernels
    assert all(0.2 < float(kernel.detach().std()) < 0.4 for kernel in kernels)


def test_token_accuracy_counts_what_the_expert_wrote() -> None:
    model, _ = small_agent("convolution", 0)
    rng = torch.Generator().manual_seed(0)
    rows = []
    hits = []
    for length in (7, 12):
        ids = torch.randint(0, 500, (length,), generator=rng)
        mask = torch.rand(length, generator=rng) < 0.5
        with torch.no_grad():
            best = model.eval()(input_ids=ids[None]).logits[0].argmax(-1)
        ids[5] = best[4]  # at least one hit
        mask[5] = True
        with torch.no_grad():
            best = model(input_ids=ids[None]).logits[0].argmax(-1)
        hits += [bool(best[i - 1] == ids[i]) for i in range(1, length) if mask[i]]
        rows.append(_Row(tuple(ids.tolist()), tuple(mask.tolist())))
    assert 0 < sum(hits) < len(hits)
    assert lab.token_accuracy(model, rows) == pytest.approx(sum(hits) / len(hits))


class _Row:
    def __init__(self, input_ids: tuple[int, ...], action_mask: tuple[bool, ...]) -> None:
        self.input_ids, self.action_mask = input_ids, action_mask


def test_demonstrations_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = lab.demonstrated(7, True)
    assert rows
    assert all(any(row.action_mask) for row in rows)
    monkeypatch.setattr(lab, "WorldEnvironment", None)
    assert lab.demonstrated(7, True) == rows


def test_what_was_answered_is_not_asked_again(tmp_path, untrained, monkeypatch) -> None:
    world = Encyclopedia(3, 60, split="test")
    kinds = {"1": world.questions(2, hops=1)}
    file = tmp_path / "answers.jsonl"
    first = lab.attempted(untrained, world, kinds, file, max_calls=1)
    assert [one.question for one in first] == [question.text for question in kinds["1"]]
    assert all(one.prompts and one.ended != "answer" for one in first)
    monkeypatch.setattr(lab, "engine_of", None)
    assert lab.attempted(untrained, world, kinds, file, max_calls=1) == first


def test_rollouts_that_break_conclude_nothing(tmp_path, monkeypatch) -> None:
    world = Encyclopedia(3, 60, split="test")
    monkeypatch.setattr(lab, "engine_of", lambda model: ScriptedEngine([]))
    file = tmp_path / "answers.jsonl"
    with pytest.raises(RunError, match="1 of 1 rollouts broke"):
        lab.attempted("none", world, {"1": world.questions(1, hops=1)}, file)
    assert not file.exists()


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_training_goes_on(tmp_path, monkeypatch) -> None:
    rows = lab.demonstrated(7, True)
    whole = lab.fine_tuned(small_agent("convolution", 1), rows, tmp_path / "a", tokens=6_000)
    with monkeypatch.context() as patched:
        patched.setattr(lab.models, "save", _killed)
        with pytest.raises(KeyboardInterrupt):
            lab.fine_tuned(small_agent("convolution", 1), rows, tmp_path / "b", tokens=6_000)
    # Other weights to begin with: those of the first process are on the disk.
    again = lab.fine_tuned(small_agent("convolution", 2), rows, tmp_path / "b", tokens=6_000)
    one, other = (models.load_model(path).state_dict() for path in (whole, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None, max_examples=30)
def test_gain_is_the_mean_of_paired_differences_within_its_interval(
    pairs: list[tuple[bool, bool]],
) -> None:
    before, after = zip(*pairs, strict=True)
    found = gain(before, after)
    assert found.value == pytest.approx((sum(after) - sum(before)) / len(pairs))
    assert found.low <= found.value + 1e-9
    assert found.high >= found.value - 1e-9
    assert (found.low == found.high) == (len({a - b for b, a in pairs}) == 1)


def test_interval_of_a_gain_is_as_wide_as_its_standard_error_says() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random((2, 400)) < np.array([[0.3], [0.6]])
    found = gain(before, after)
    error = np.std(after.astype(float) - before, ddof=1) / 20
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


# -- the rule of heavy mode


@given(st.lists(st.sampled_from(["Ana Bo [1]", "ana  bo [3]", "Cy Do", "none was found"]),
                min_size=1, max_size=7))  # fmt: skip
def test_what_is_agreed_on_is_a_majority(answers: list[str]) -> None:
    votes = Counter("ana" if "na" in a.lower()[:3] else "cy" for a in answers if "none" not in a)
    chosen = agreed(answers)
    if not votes:
        assert chosen == ""
        return
    assert chosen in answers
    assert votes["ana" if "na" in chosen.lower()[:3] else "cy"] == max(votes.values())
    if votes["ana"] == votes["cy"]:
        assert "[" in chosen, "of equals the one that names a source"


def _heavy(answers: list[str]) -> str | None:
    """What heavy mode answers when its rollouts answer so, each after a thought."""

    def write(request: Request) -> str:
        assert request.sampling.seed is not None
        answer = answers[request.sampling.seed // 10_000 - 1]  # seeds of rollouts are so far apart
        return f"<think>\nit is {answer}\n</think>\n<answer>\n{answer}\n</answer>"

    scripted = ScriptedEngine(write)

    async def run() -> str | None:
        engine = Agreement(scripted)
        with lab.WorldEnvironment(Encyclopedia(1, 40)) as environment:
            events = [
                event
                async for event in aheavy_research(
                    environment.index, engine, "Who?", n=len(answers), mode="react",
                    tools=environment.tools,
                )
            ]  # fmt: skip
        return events[-1].answer

    return asyncio.run(run())


def test_heavy_mode_goes_by_agreement() -> None:
    assert _heavy(["Ana Bo", "Cy Do", "Cy Do", "Ed Fo"]) == "Cy Do"
    assert _heavy(["Ana Bo"]) == "Ana Bo"
    assert _heavy(["Ana Bo", "cy do", "Cy  Do"]) == "cy do"


def test_agreement_leaves_turns_to_the_engine() -> None:
    engine = Agreement(ScriptedEngine([Reply("its own")]))
    talk = (Message("system", "s"), Message("user", "# Report 1\nx\n\nAnswer: y\n"))
    assert asyncio.run(engine.complete(Request(talk))).text == "its own"


# -- decision rules


def figures(**values: float | list[float]) -> Figures:
    made = Figures()
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value, value]:
            made.add(name, one)
    return made


def with_gain(name: str, value: float, low: float | list[float]) -> dict[str, float | list[float]]:
    return {name: value, f"{name}, low": low, f"{name}, high": 2 * value}


def _rl(value: float, low: float | list[float]) -> str:
    return rl_verdict(
        figures(
            **{f"right answers, {name}": 40.0 for name in ("fine-tuned", "kept", "excluded")},
            **{f"greedy, {name}": 50.0 for name in ("fine-tuned", "kept", "excluded")},
            **with_gain("gain, kept", value, low),
            **with_gain("gain, excluded", 50, 40),
            **with_gain("excluded over kept", 50, 40),
        )
    ).verdict


def test_rl_is_decided_by_the_run_with_lost_attempts_kept_in_every_seed() -> None:
    assert _rl(10, 1) == "shown"
    assert _rl(9.9, 1) == "not shown"
    assert _rl(20, [5, -0.1]) == "not shown"


@pytest.mark.parametrize(
    ("plain", "adamw", "low", "verdict"),
    [(30, 10, 1, "shown"), (29, 10, 1, "not shown"), (30, 9, 1, "not shown"),
     (60, 60, [9, 0], "not shown")],
)  # fmt: skip
def test_convolution_and_muon_must_both_count(plain, adamw, low, verdict) -> None:
    best = "convolution, Muon"
    found = convolution_verdict(
        figures(
            **{f"right answers, {name}": 50.0 for name in VARIANTS},
            **{f"tokens of the expert, {name}": 90.0 for name in VARIANTS},
            **with_gain(f"{best} over no convolution, Muon", plain, 1),
            **with_gain(f"{best} over convolution, AdamW", adamw, low),
            **with_gain(f"{best} over Kimi-Linear hybrid, Muon", -50, -60),
        )
    )
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("value", "low", "verdict"),
    [(10, 0.1, "shown"), (9, 5, "not shown"), (30, [10, -1], "not shown")],
)
def test_mid_training_must_give_ten_points(value, low, verdict) -> None:
    names = ("without", "with", "mid-training alone")
    found = mid_training_verdict(
        figures(**{f"right answers, {n}": 1.0 for n in names}, **with_gain("gain", value, low))
    )
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("curve", "steady", "drop", "verdict"),
    [
        ([30, 40, 50, 55, 60], [28, 36, 47, 50, 54], 6, "shown"),
        ([30, 40, 50, 55, 60], [28, 36, 47, 50, 44], 16, "not shown"),
        ([30, 40, 50, 55, 60], [54, 36, 47, 30, 54], 6, "not shown"),
        ([50, 51, 52, 53, 54], [50, 51, 52, 53, 54], 0, "cannot be shown at this scale"),
        ([30, 40, 50, 55, 60], [0, 0, 0, 0, 0], 60, "not shown"),
    ],
)
def test_transfer_needs_one_shape_and_nearly_the_same_end(curve, steady, drop, verdict) -> None:
    points = {}
    for step, (a, b) in enumerate(zip(curve, steady, strict=True)):
        points |= {f"simulated, step {8 * step}": a, f"unreliable, step {8 * step}": b}
        points |= {f"simulated, step {8 * step}: 1": 0, f"unreliable, step {8 * step}: 1": 0}
    last = with_gain("unreliable over simulated, last", -drop, -drop)
    found = simulated_verdict(
        figures(**points, **last, **{"unreliable without the layer, last": 1})
    )
    assert found.verdict == verdict


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=8))
@settings(deadline=None)
def test_rank_correlation_is_spearmans(points: list[tuple[int, int]]) -> None:
    x, y = zip(*points, strict=True)
    changing = len(set(x)) > 1 and len(set(y)) > 1
    expected = spearmanr(x, y).statistic if changing else 0.0
    assert rank_correlation(x, y) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gains", "losses", "verdict"),
    [
        ((3, 0), (-3, 5), "shown"),
        ((9, 9), (-3.1, 5), "not shown"),
        ((2.9, 2), (0, 0), "cannot be shown at this scale"),
    ],
)
def test_merging_must_keep_both_strengths_if_there_are_any(gains, losses, verdict) -> None:
    values = {}
    for kind, won, lost in zip("12", gains, losses, strict=True):
        values |= with_gain(f"gain at its own: {kind}", won, 0)
        values |= with_gain(f"merged over the better: {kind}", lost, 0)
        for name in ("fine-tuned", "1-hop", "2-hop", "merged"):
            values[f"right answers, {name}: {kind}"] = 50
    assert merge_verdict(figures(**values)).verdict == verdict


@pytest.mark.parametrize(
    ("means", "low", "verdict"),
    [
        ((0, 20, 50, 60), 1, "shown"),
        ((0, 20, 61, 59), 1, "shown"),
        ((0, 20, 65, 60), 1, "not shown"),
        ((0, 20, 30, 39), 1, "not shown"),
        ((0, 20, 50, 60), [1, 0], "not shown"),
    ],
)
def test_more_calls_must_not_lose(means, low, verdict) -> None:
    values = {f"{cap} calls": mean for cap, mean in zip((1, 2, 4, 8), means, strict=True)}
    most = with_gain("8 calls over 1", means[-1] - means[0], low)
    assert interaction_verdict(figures(**values, **most)).verdict == verdict


@pytest.mark.parametrize(
    ("few", "kept", "lost", "flat", "roomy", "verdict"),
    [
        (80, 64, 39, 10, 70, "shown"),
        (80, 63, 39, 10, 70, "not shown"),
        (80, 70, 40, 10, 70, "not shown"),
        (80, 70, 10, 21, 70, "not shown"),
        (39, 39, 10, 10, 70, "not shown"),
        (80, 70, 10, 10, 39, "cannot be shown at this scale"),
    ],
)
def test_rounds_must_keep_prompts_and_accuracy(few, kept, lost, flat, roomy, verdict) -> None:
    values = {"ReAct: tokens a round": 100, "Markov, 512 tokens: tokens a round": flat}
    values |= {"Markov, 512 tokens: 2": few, "Markov, 512 tokens: 5": kept}
    values |= {"ReAct, 512 tokens: 5": lost, "ReAct: 5": roomy, "Markov: 5": roomy - 1}
    values |= {"Markov, 512 tokens: longest prompt": 300}
    assert markov_verdict(figures(**values)).verdict == verdict


def test_growth_is_the_slope_of_prompts_from_the_second_round_on() -> None:
    def attempt(prompts: list[int]) -> Attempt:
        return Attempt("5", "q", False, "answer", prompts, 1, 0)

    assert prompt_growth([attempt([9, 100, 150, 200]), attempt([5, 100, 150])]) == pytest.approx(50)
    assert prompt_growth([attempt([9, 100])]) == 0.0


@pytest.mark.parametrize(
    ("value", "low", "verdict"),
    [(5, 0.1, "shown"), (4.9, 1, "not shown"), (9, [1, -1], "not shown")],
)
def test_heavy_mode_must_beat_one_of_its_rollouts(value, low, verdict) -> None:
    names = ("Avg@1 of the 4", "heavy, n = 4", "any of the 4", "greedy, one rollout",
             "tokens written, of one rollout")  # fmt: skip
    found = heavy_verdict(figures(**dict.fromkeys(names, 50.0), **with_gain("gain", value, low)))
    assert found.verdict == verdict
