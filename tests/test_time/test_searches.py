"""Searches that ask and are told, in a toy world that needs no model."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanol.errors import ConfigError, DataError, UnknownNameError
from hanol.test_time import (
    DVTS,
    AdaptiveVote,
    BeamSearch,
    BestOfN,
    BudgetForcing,
    ConfidenceVote,
    Greedy,
    Majority,
    ParticleFilter,
    Search,
    SequentialRevision,
    Step,
    strategy_class,
    trace_confidence,
)

from .conftest import Toy

ALL = [
    Greedy, BestOfN, Majority, AdaptiveVote,
    lambda n, **o: BeamSearch(n, min(n, 2), **o), lambda n, **o: BeamSearch(n, n, **o),
    lambda n, **o: BeamSearch(n, 2 if n > 2 else n, 1, **o) if n != 2 else BeamSearch(2, 2, **o),
    lambda n, **o: BeamSearch(n, min(n, 2), finished="retire", **o),
    lambda n, **o: DVTS(n, min(n, 2), **o), ParticleFilter,
    lambda n, **o: SequentialRevision(n, 2 if n > 1 else 1, **o), BudgetForcing,
]  # fmt: skip


def by_hand(n: int, width: int, lookahead: int, toy: Toy) -> tuple[list[list[str]], list[str]]:
    """Beam search as the paper tells it: kept prefixes of each round, and the finals."""

    def children(text: str, node: int, drawn: int, count: int) -> list[str]:
        made = []
        for i in range(count):
            digit = str(((1_000_000 * node + drawn + i) * 7919) * 2654435761 % 2**32 % 10)
            made.append(text + digit)
        return made

    def ends(text: str) -> bool:
        return len(text) >= toy.length(text[0])

    def rank(text: str) -> float:
        for _ in range(0 if ends(text) else lookahead):
            text += "9"
            if ends(text):
                break
        return toy.score(list(text))

    numbers = itertools.count(1)
    candidates = [(text, next(numbers)) for text in children("", 0, 0, n)]
    rounds = []
    while True:
        if lookahead:  # rollouts take numbers of nodes, too
            for text, _ in candidates:
                if not ends(text) and not any(text in kept for kept in rounds[-1:] if ends(text)):
                    next(numbers)
        best = sorted(candidates, key=lambda one: (-rank(one[0]), one[1]))[: n // width]
        rounds.append([text for text, _ in best])
        if all(ends(text) for text, _ in best):
            return rounds, [text for text, _ in candidates if ends(text)]
        fresh = [
            (child, next(numbers))
            for text, number in best
            if not ends(text)
            for child in children(text, number, 1 if lookahead else 0, width)
        ]
        candidates = [one for one in best if ends(one[0])] + fresh


@pytest.mark.parametrize("lookahead", [0, 1, 2])
@pytest.mark.parametrize(("n", "width"), [(16, 4), (8, 2), (4, 4), (9, 3)])
def test_a_beam_keeps_the_predicted_prefixes(n: int, width: int, lookahead: int) -> None:
    toy = Toy(length=lambda first: 3 + int(first) % 2)
    search = BeamSearch(n * (lookahead + 1), width, lookahead)
    assert search.beams == n
    expected, finals = by_hand(n, width, lookahead, toy)
    toy.run(search)
    kept = [sorted(t for t, m in toy.asked if len(t) == k and m > 1 and t) for k in range(1, 5)]
    predicted = [sorted(t for t in round_ if len(t) < toy.length(t[0])) for round_ in expected]
    if width > 1:
        assert [row for row in kept if row] == [row for row in predicted if row]
    assert sorted(search.text(node.id) for node in search._finals() if node.ends) == sorted(finals)


def test_the_end_of_a_rollout_is_what_ranks() -> None:
    """Lookahead is scored: a prefix that looks bad at first wins by what follows it."""
    search = BeamSearch(4, 2, 1)
    [root] = search.ask()
    search.tell(root, ["bad", "good"], [0.1, 0.9])
    for prefix in search.ask():
        assert prefix.greedy
        assert prefix.max_steps == 1
        search.tell(prefix, ["later"], [0.95 if prefix.text == "bad" else 0.05])
    assert [prefix.text for prefix in search.ask()] == ["bad"]  # and the rollout is dropped


def test_widths_of_one_and_of_all() -> None:
    toys = [Toy(), Toy(), Toy()]
    best = toys[0].run(BestOfN(8))
    beam = toys[1].run(BeamSearch(8, 1, lookahead=2))
    assert (beam.answer, beam.votes) == (best.answer, best.votes)
    toys[2].run(BeamSearch(8, 8))
    assert [n for _, n in toys[2].asked] == [8, 8, 8]  # one prefix goes on each time


@pytest.mark.parametrize("number", range(len(ALL)))
def test_a_budget_of_one_is_one_plain_sample(number: int) -> None:
    toy = Toy()
    search = toy.run(ALL[number](1))
    assert toy.asked == [("", 1)]
    plain = Toy().run(BestOfN(1))
    if not isinstance(search, Greedy):
        assert search.answer == plain.answer


@given(st.integers(0, len(ALL) - 1), st.sampled_from([2, 4, 8, 16]), st.integers(1, 6),
       st.integers(0, 50))  # fmt: skip
def test_the_budget_is_never_exceeded(number: int, n: int, tokens: int, seed: int) -> None:
    """Whatever the lengths: fewer tokens are generated than budget times tokens of an answer."""
    toy = Toy(length=lambda first: 1 + int(first))
    search = ALL[number](n, answer_tokens=tokens, seed=seed)
    rows = set()
    while not search.done:
        asked = search.ask()
        assert asked
        worst = sum(p.n * (p.max_tokens or 0) for p in asked)
        assert worst <= n * tokens - search.spent
        for prefix in asked:
            for i in range(prefix.n):  # no prefix is continued twice with one seed
                key = (prefix.node, prefix.context, prefix.seed + i, prefix.greedy)
                assert key not in rows
                rows.add(key)
            toy.answer(search, prefix)
    assert search.spent == toy.tokens <= n * tokens
    assert sum(node.cost for node in search.nodes) == search.spent


def test_costs_are_those_that_are_billed() -> None:
    """Solutions of 3 steps, 1 token each: best of N is N solutions, lookahead k k + 1 times N."""
    toy = Toy(3)
    assert toy.run(BestOfN(8)).spent == 8 * 3
    assert Toy(3).run(BeamSearch(8, 4)).spent == 8 * 3
    assert Toy(3).run(DVTS(8, 4)).spent == 8 * 3
    assert Toy(3).run(ParticleFilter(8)).spent == 8 * 3
    # A rollout of 1 step after each of the first two steps.
    assert Toy(3).run(BeamSearch(16, 4, 1)).spent == 8 * (3 + 2)


@pytest.mark.parametrize("number", range(len(ALL)))
def test_a_search_is_resumed_in_the_middle(number: int, tmp_path: Path) -> None:
    whole, steps = Toy(5).run(ALL[number](4, answer_tokens=7)), 0
    toy, search = Toy(5), ALL[number](4, answer_tokens=7)
    while not search.done:
        search.save(tmp_path / "state.json")
        search = Search.load(tmp_path / "state.json")
        toy.answer(search, search.ask()[0])
        steps += 1
    assert steps == len(toy.asked)
    assert json.dumps(search.to_dict()) == json.dumps(whole.to_dict())
    assert (search.answer, search.chosen, search.votes) == (whole.answer, whole.chosen, whole.votes)
    assert search.nodes == whole.nodes


def test_dvts_keeps_one_prefix_of_each_tree() -> None:
    toy = Toy(3)
    search = DVTS(8, 2)
    [root] = search.ask()
    toy.answer(search, root)
    for tree, prefix in enumerate(search.ask()):
        mine = search.nodes[1 + 2 * tree : 3 + 2 * tree]
        assert prefix.node == max(mine, key=lambda node: node.score).id
    toy.run(search)
    assert sum(node.ends for node in search.nodes) == 8


def test_finished_beams_keep_their_place_and_have_one_vote() -> None:
    search = BeamSearch(4, 2)
    [root] = search.ask()
    done = Step("x", answer="7")
    search.tell(root, [done, "a", "b", "c"], [0.9, 0.8, 0.1, 0.2])
    [prefix] = search.ask()  # one place of two is taken
    assert (prefix.text, prefix.n) == ("a", 2)
    search.tell(prefix, [Step("1", answer="8"), Step("2", answer="8")], [0.3, 0.5])
    assert search.done
    assert search.votes == {"7": 0.9, "8": 0.8}
    retired = BeamSearch(4, 2, finished="retire")
    [root] = retired.ask()
    retired.tell(root, [done, "a", "b", "c"], [0.9, 0.8, 0.1, 0.2])
    assert [prefix.text for prefix in retired.ask()] == ["a", "c"]


def test_unreadable_answers_have_no_vote_and_ends_may_be_dead() -> None:
    search = BestOfN(4)
    [root] = search.ask()
    ended = [Step("?", final=True)] * 3
    search.tell(root, [*ended, Step("5", answer="5")], [0.9, 0.9, 0.9, 0.1])
    assert search.answer == "5"
    nothing = BeamSearch(4, 2)
    nothing.tell(nothing.ask()[0], [], [])
    assert nothing.done
    assert nothing.answer is None


def test_steps_may_be_texts_that_state_their_answer() -> None:
    search = BeamSearch(2, 2)
    [root] = search.ask()
    search.tell(root, ["2 + 2 = 4", r"So it is \boxed{4}."], [0.5, 0.6])
    assert search.answer == "4"
    own = Majority(3, final=lambda text: text[-1] if text.endswith("!") else None)
    own.tell(own.ask()[0], ["a!", "b!", "b!"])
    assert own.answer == "!"


@pytest.mark.parametrize("rule", ["exact", "beta"])
@given(st.lists(st.sampled_from("112234x"), min_size=1, max_size=24))
def test_the_adaptive_vote_stops_when_nothing_can_change(rule: str, answers: list[str]) -> None:
    said = [Step(a, final=True, answer=None if a == "x" else a) for a in answers]
    search = AdaptiveVote(len(answers), rule)
    given_ = iter(said)
    while not search.done:
        [root] = search.ask()
        search.tell(root, list(itertools.islice(given_, root.n)))
    drawn = len(search.nodes) - 1
    whole = Majority(len(answers))
    whole.tell(whole.ask()[0], said)
    if rule == "exact":
        assert search.answer == whole.answer
        if drawn > 1:  # one answer fewer, and the vote could have been overturned
            known = answers[: drawn - 1]
            rest = len(answers) - drawn + 1
            assert could_change(known, rest)
    assert drawn <= len(answers)


def could_change(known: list[str], rest: int) -> bool:
    """Whether answers to come can make another answer win than the leading one."""
    votes = Counter(a for a in known if a != "x")
    if not votes:
        return True
    lead = max(votes, key=lambda a: (votes[a], -known.index(a)))
    others = [a for a in votes if a != lead]
    if any((votes[a] + rest, -known.index(a)) > (votes[lead], -known.index(lead)) for a in others):
        return True
    return rest > votes[lead]


def test_the_beta_rule_stops_at_its_certainty() -> None:
    search = AdaptiveVote(64, "beta", 0.95)
    while not search.done:
        [root] = search.ask()
        search.tell(root, [Step("7", answer="7")] * root.n)
    # 1 - 0.5^(v + 1) >= 0.95 at v = 4.
    assert len(search.nodes) - 1 == 4


def test_particles_are_drawn_by_their_odds() -> None:
    counts: Counter[str] = Counter()
    for seed in range(200):
        search = ParticleFilter(8, seed=seed)
        search.tell(search.ask()[0], list("abcdefgh"), [0.9] + [0.1] * 7)
        counts.update({prefix.text: prefix.n for prefix in search.ask()})
    share = 9 / (9 + 7 / 9)
    assert counts["a"] / counts.total() == pytest.approx(share, abs=0.02)
    bad = ParticleFilter(2)
    [prefix] = bad.ask()
    with pytest.raises(DataError, match="from 0 to 1"):
        bad.tell(prefix, ["a", "b"], [0.5, 1.5])


def test_revisions_see_their_chain_and_are_chosen_over_all_of_it() -> None:
    search = SequentialRevision(12, chains=2, context=4)
    seen = []
    while not search.done:
        for prefix in search.ask():
            seen.append((prefix.n, prefix.context))
            made = [
                Step(f"[{prefix.seed + i}]", answer="1" if len(prefix.context) < 2 else "2")
                for i in range(prefix.n)
            ]
            search.tell(prefix, made, [0.9 if s.answer == "1" else 0.2 for s in made])
    assert seen[0] == (2, ())
    assert [len(context) for _, context in seen[1:]] == [1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    assert all(one[0] != two[0] for (_, one), (_, two) in zip(seen[1::2], seen[2::2], strict=True))
    assert search.answer == "1"  # the last answer of both chains was wrong
    assert SequentialRevision(4, chains=4).ask()[0].n == 4


@pytest.mark.parametrize("tokens", [1, 2, 8, 40])
def test_forced_thoughts_end_within_the_budget(tokens: int) -> None:
    search, texts = BudgetForcing(3, answer_tokens=tokens, waits=2), []
    while not search.done:
        [prefix] = search.ask()
        texts.append(prefix.text)
        room = prefix.max_tokens
        if prefix.text.endswith("answer:"):
            search.tell(prefix, [Step(" 5", tokens=min(2, room), final=True, answer="5")])
        elif room < 6:  # it is cut
            search.tell(prefix, [Step("t" * room, tokens=room)])
        else:
            search.tell(prefix, [Step("<think>hm</think>", tokens=6)])
    assert search.spent <= 3 * tokens
    if tokens == 40:
        assert [text.count("Wait") for text in texts] == [0, 1, 2, 2]
        assert texts[-1].count("</think>") == 1  # ends that were taken back are gone
        assert search.answer == "5"


def test_confident_answers_vote() -> None:
    def trace(answer: str, level: float, low: float | None = None) -> Step:
        sure = [level] * 8 + [level if low is None else low] * 4 + [level] * 8
        return Step(answer, answer=answer, tokens=20, confidences=tuple(sure))

    search = ConfidenceVote(5, keep=0.4, trace="lowest", window=4)
    [root] = search.ask()
    assert root.top_logprobs == 20
    search.tell(root, [trace("1", 5, 1), trace("1", 5, 1), trace("1", 5, 1), trace("2", 4),
                       trace("3", 3)])  # fmt: skip
    assert search.votes == {"2": 4.0, "3": 3.0}
    online = ConfidenceVote(6, online=True, keep=0.5, window=4, warmup=2, answer_tokens=40)
    online.tell(online.ask()[0], [trace("1", 5), trace("2", 5)])
    [more] = online.ask()
    assert (more.n, more.max_tokens) == (2, 16)
    low, high = (Step("t", tokens=16, confidences=(x,) * 16) for x in (1.0, 9.0))
    online.tell(more, [low, high])
    [going] = online.ask()
    assert going.node == 4  # the unsure answer was broken off
    bare = ConfidenceVote(2)
    [root] = bare.ask()
    with pytest.raises(DataError, match="no log-probabilities"):
        bare.tell(root, [Step("1", answer="1"), Step("2", answer="2")])


def test_confidence_of_a_trace_is_that_of_its_groups() -> None:
    values = [4.0] * 10 + [1.0] * 2 + [4.0] * 10
    assert trace_confidence(values, "mean") == pytest.approx(82 / 22)
    assert trace_confidence(values, "lowest", window=2) == 1.0
    assert trace_confidence(values, "tail", window=5) == 4.0
    assert trace_confidence(values, "bottom", window=2) == pytest.approx((1.0 + 2.5) / 2)


def test_what_does_not_fit_is_refused() -> None:
    for make, message in [
        (lambda: BeamSearch(10, 4), "`budget` is 10, which is not divisible by `width` 4"),
        (lambda: BeamSearch(8, 4, 2), "2 beams with a lookahead of 2.*give 12"),
        (lambda: BestOfN(0), "`budget` is 0"),
        (lambda: SequentialRevision(6, 4), "`budget` is 6, .* `chains` 4"),
        (lambda: AdaptiveVote(4, "sure"), '"exact" or "beta"'),
        (lambda: BestOfN(4, method="best"), "`method` is 'best'"),
        (lambda: BestOfN(4, aggregate="max"), "`how` is 'max'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make()
    with pytest.raises(UnknownNameError, match="Did you mean 'beam'"):
        strategy_class("beams")


def test_what_is_told_must_be_what_was_asked() -> None:
    search = BeamSearch(4, 2)
    [root] = search.ask()
    for steps, scores, message in [
        (["a", "b"], [0.1], "2 continuations but 1 scores"),
        (["a"] * 5, [0.1] * 5, "wants at most 4"),
        (["a"], [math.nan], "A score is nan"),
        ([["a", "b"]], [0.5], "2 steps, but prefix 0 wants at most 1"),
        (["a"], None, "`scores` is missing"),
        ([[]], [0.1], "has no steps"),
    ]:
        with pytest.raises(DataError, match=message):
            search.tell(root, steps, scores)
    assert search.ask() == [root]
    search.tell(root, ["a", "b", "c", "d"], [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(DataError, match="does not wait"):
        search.tell(root, ["a"], [0.1])
    limited = BestOfN(2, answer_tokens=3)
    with pytest.raises(DataError, match="4 tokens, .* allows 3"):
        limited.tell(limited.ask()[0], [Step("x", tokens=4)], [0.1])


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"strategy": "beam"},
        {"strategy": "beam", "options": {}, "told": []},
        {"strategy": "majority", "options": {"budget": 2}, "told": [[7, [], []]]},
    ],
)
def test_a_damaged_state_is_named(plain: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="damaged"):
        Search.from_dict(plain)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="could not be read"):
        Search.load(tmp_path / "a.json")


@pytest.mark.parametrize("how", ["last", "min", "prod", "mean"])
def test_the_chosen_aggregation_is_the_one_that_ranks(how: str) -> None:
    """Over the whole path, not its last step alone."""
    search = BeamSearch(2, 2, aggregate=how)
    search.tell(search.ask()[0], ["a", "b"], [0.8, 0.5])
    [prefix] = search.ask()
    search.tell(prefix, ["c"], [0.6])
    node = search.nodes[-1]
    assert node.score == pytest.approx({"last": 0.6, "min": 0.6, "prod": 0.48, "mean": 0.7}[how])
