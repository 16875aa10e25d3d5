"""Protocols: who is asked what and when, whose scores count, and what stays unscored."""

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence

import pytest

from hanol.engines import Completion, Request, ScriptedEngine
from hanol.errors import (
    CapabilityError,
    ConfigError,
    DataError,
    EngineError,
    MissingSourceError,
    UnknownNameError,
)
from hanol.evaluation import Item, Judgement, MetricJudge, NoisyOracle, Rubric, ajudge, judge

RUBRIC = Rubric.load("diting")
ITEM = Item(id="7", task="idiom", source="马马虎虎", candidate="So so.", system="m")


def says(sp: int, g_1: int = 1, g_2: int = 1, verdict: str | None = None, why: str = "x") -> str:
    reply = {"thoughts": why} if verdict is None else {"judge_reasons": why, "judge": verdict}
    return json.dumps({**reply, "sp": sp, "g_1": g_1, "g_2": g_2})


class Recorder(ScriptedEngine):
    """Replies in the order of the calls; the last one for all further calls."""

    def __init__(self, *replies: str | Exception, name: str = "scripted") -> None:
        self.requests: list[Request] = []
        self._left = itertools.chain(replies, itertools.repeat(replies[-1]))
        super().__init__(self._reply, name=name)

    def _reply(self, request: Request) -> str:
        self.requests.append(request)
        reply = next(self._left)
        if isinstance(reply, Exception):
            raise reply
        return reply


def one(*args: object, **options: object) -> Judgement:
    (found,) = judge([ITEM], RUBRIC, *args, **options)
    return found


def roles(request: Request) -> list[str]:
    return [message.role for message in request.messages]


# -- official


@pytest.mark.parametrize(("rounds", "calls"), [(1, 3), (2, 6), (3, 9)])
def test_official_stops_when_the_judge_says_yes(rounds: int, calls: int) -> None:
    no, yes = says(0, verdict="no"), says(2, verdict="yes")
    script = [says(1), says(1), no] * (rounds - 1) + [says(1), says(1), yes]
    found = one(Recorder(*script), protocol="official")
    assert (found.calls, found.rounds, found.scores["sp"]) == (calls, rounds, 2)


def test_official_takes_the_last_word_even_if_it_still_says_no() -> None:
    engine = Recorder(*[says(1), says(1), says(0, verdict="no")] * 4, says(2, verdict="no"))
    found = one(engine, protocol="official")
    assert (found.calls, found.status, found.scores["sp"]) == (13, "ok", 2)


def test_official_messages_are_those_of_the_code() -> None:
    engine = Recorder(*["opening", "reply", says(1, verdict="no", why="they differ")] * 2, "a")
    engine.requests.clear()
    one(engine, protocol="official", max_rounds=2, parse_retries=0)
    first_b, judge_1, second_a, second_b, judge_2 = (engine.requests[i] for i in (1, 2, 3, 4, 5))
    assert roles(first_b) == ["system", "user", "user"]
    assert first_b.messages[-1].text == "正方：opening"
    assert roles(judge_1) == ["system", "user", "user", "user"]
    assert roles(second_a) == ["system", "user", "assistant", "user"]
    assert second_a.messages[-1].text == "反方：reply"
    assert roles(second_b) == ["system", "user", "user", "assistant", "user"]
    assert judge_2.messages[4].text == "they differ"  # only the reasons are remembered


def test_official_has_no_gates() -> None:
    found = one(Recorder(says(0), says(0), says(0, 2, 1, verdict="yes")), protocol="official")
    assert dict(found.scores) == {"sp": 0, "g_1": 2, "g_2": 1}
    gated = one(ScriptedEngine(lambda _: says(0, 2, 1, verdict="yes")), protocol="paper")
    assert gated.scores.raw == {"sp": 0, "g_1": 2, "g_2": 1}
    assert gated.scores.gated == {"sp": 0, "g_1": 0, "g_2": 0}
    assert (gated.total, gated.flags) == (0, ("gate",))


@pytest.mark.parametrize(
    "reply",
    [
        f"```json\n{says(2, verdict='yes')}\n```",
        says(2, verdict="yes") + "}",
        says(2, verdict="Yes"),
        '{"judge": "yes", "sp": "2", "g_1": "1", "g_2": "1"}',
    ],
    ids=["code fence", "stray brace", "capital Yes", "string scores"],
)
@pytest.mark.parametrize("protocol", ["official", "paper"])
def test_replies_that_crash_the_official_code(protocol: str, reply: str) -> None:
    found = one(
        Recorder("{}" if protocol == "official" else says(2), says(1), reply), protocol=protocol
    )
    assert (found.status, found.calls) == ("ok", 3)
    assert dict(found.scores) == {"sp": 2, "g_1": 1, "g_2": 1}


@pytest.mark.parametrize("missing", ['{"judge": "yes", "sp": 2, "g_1": 1}', "I find it good.", ""])
def test_what_is_no_reply_is_asked_for_again_then_unscored(missing: str) -> None:
    engine = Recorder(says(1), says(2), missing, says(2, verdict="yes"))
    found = one(engine)
    assert (found.status, found.calls) == ("ok", 4)
    assert [message.role for message in engine.requests[3].messages[-2:]] == ["assistant", "user"]
    assert "cannot be used" in engine.requests[3].messages[-1].text
    never = one(Recorder(says(1), says(2), missing), parse_retries=2)
    assert (never.status, never.scores, never.total, never.calls) == ("unscored", None, None, 5)
    assert never.problem.startswith("judge: no valid reply in 3 tries")


# -- paper


class Slow(ScriptedEngine):
    """Notes how many calls are under way when each begins."""

    def __init__(self, reply: Callable[[Request], str]) -> None:
        super().__init__(reply, latency=0.01)
        self.running, self.seen = 0, []

    async def complete(self, request: Request) -> Completion:
        self.running += 1
        self.seen.append((self.running, request))
        try:
            return await super().complete(request)
        finally:
            self.running -= 1


def test_paper_openings_are_independent_and_at_the_same_time() -> None:
    engine = Slow(lambda request: says(1, verdict="yes", why="a secret"))
    one(engine, protocol="paper")
    openings = engine.seen[:2]
    assert [running for running, _ in openings] == [1, 2]
    assert all(roles(request) == ["system", "user"] for _, request in openings)
    assert not any("a secret" in request.messages[-1].text for _, request in openings)
    assert engine.seen[2][1].messages[-1].text.count("a secret") == 2


def test_paper_scorers_answer_each_other() -> None:
    a = Recorder(says(2, why="apt"), says(1, why="stiff after all"))
    b = Recorder(says(0, why="literal"), says(1))
    j = Recorder(says(1, verdict="no", why="they differ"), says(1, verdict="yes"))
    found = one([a, b, j])
    assert (found.calls, found.rounds, found.decided_by) == (6, 2, "agreement")
    assert roles(a.requests[1]) == ["system", "user", "assistant", "user"]
    assert "literal" in a.requests[1].messages[-1].text
    assert "apt" in b.requests[1].messages[-1].text
    assert roles(j.requests[1]) == ["system", "user", "assistant", "user"]
    assert [said.role for said in found.transcript] == ["A", "B", "judge"] * 2


def test_paper_ends_without_the_judge_where_it_is_optional() -> None:
    assert one(Recorder(says(1)), judge_optional=True).calls == 2
    assert one([Recorder(says(1)), Recorder(says(2)), Recorder(says(2, verdict="yes"))],
               judge_optional=True).calls == 3  # fmt: skip


def test_the_judge_does_not_override_an_agreement() -> None:
    engines = [Recorder(says(2)), Recorder(says(2)), Recorder(says(0, verdict="yes"))]
    found = one(engines)
    assert (found.scores["sp"], found.decided_by, found.flags) == (2, "agreement", ("override",))
    engines = [Recorder(says(2)), Recorder(says(2)), Recorder(says(0, verdict="yes"))]
    assert one(engines, judge_may_override=True).scores["sp"] == 0


@pytest.mark.parametrize(
    ("how", "sp"), [("judge", 1), ("mean", 2 / 3), ("median", 1), ("majority", 1)]
)
def test_final_scores(how: str, sp: float) -> None:
    engines = [Recorder(says(1)), Recorder(says(0)), Recorder(says(1, verdict="yes"))]
    assert one(engines, final_scores=how).scores["sp"] == pytest.approx(sp)


def test_the_last_round_decides() -> None:
    engines = [Recorder(says(1)), Recorder(says(0)), Recorder('{"judge": "no"}')]
    assert one(engines, max_rounds=2, parse_retries=1).status == "unscored"
    engines[2] = Recorder('{"judge": "no"}', says(2, verdict="no"))
    found = one(engines, max_rounds=2)
    assert (found.calls, found.scores["sp"]) == (6, 2)


# -- panel, roles, single


def test_a_panel_never_shrinks() -> None:
    bad = "no idea"
    split = [Recorder(says(2), name="a"), Recorder(says(1), name="b"), Recorder(bad, name="c")]
    sure = [Recorder(says(2), name="a"), Recorder(says(2), name="b"), Recorder(bad, name="c")]
    for how in ("median", "majority", "mean"):
        assert one(split, protocol="panel", aggregate=how).status == "unscored"
        found = one(sure, protocol="panel", aggregate=how)
        assert (found.status == "ok") == (how != "mean")
    assert "abstention" in one(sure, protocol="panel").flags
    assert "1 gave none" in one(split, protocol="panel").problem


@pytest.mark.parametrize("how", ["median", "majority", "mean"])
def test_the_order_of_a_panel_changes_nothing(how: str) -> None:
    replies = {"a": says(2), "b": says(1), "c": says(1, 0, 2)}
    rows = []
    for order in itertools.permutations(replies):
        engines = [ScriptedEngine(lambda _, text=replies[name]: text, name=name) for name in order]
        rows.append(one(engines, protocol="panel", aggregate=how).to_dict())
    assert all(row == rows[0] for row in rows)


def test_a_panel_of_one_engine_draws_apart() -> None:
    engine = Recorder(says(1))
    assert one(engine, protocol="panel", members=5).calls == 5
    assert len({request.sampling.seed for request in engine.requests}) == 5
    assert all(request.sampling.temperature for request in engine.requests)


def test_roles_ask_for_one_criterion_each() -> None:
    def reply(request: Request) -> str:
        text = request.messages[-1].text
        if "referee" in request.messages[0].text:
            return says(2, 1, 0, verdict="yes")
        (name,) = [name for name in RUBRIC.ids if f'Criterion "{name}"' in text]
        return json.dumps({"thoughts": "x", name: 1})

    found = one(ScriptedEngine(reply), protocol="roles")
    assert (found.status, found.calls) == ("ok", 4)
    assert dict(found.scores) == {"sp": 2, "g_1": 1, "g_2": 0}
    assert sorted(said.role for said in found.transcript) == ["g_1", "g_2", "judge", "sp"]


def test_samples_are_averaged_or_weighted_and_say_so() -> None:
    found = one(Recorder(says(1), says(2)), protocol="single", score_mode="sampled-mean", samples=2)
    assert (found.scores["sp"], found.score_mode) == (1.5, "sampled-mean")
    with pytest.raises(CapabilityError, match="gives no log-probabilities"):
        one(Recorder(says(1)), protocol="single", score_mode="token-weighted")
    with pytest.raises(ConfigError, match="needs `protocol` 'single'"):
        one(Recorder(says(1)), score_mode="sampled-mean")


def test_token_weights_come_from_the_place_of_the_score() -> None:
    class Likely(ScriptedEngine):
        capabilities = ScriptedEngine.capabilities | {"logprobs"}

    tokens = ('{"', "sp", '":', " ", "2", ', "g_1": ', "1", ', "g_2": ', "0", "}")
    near = {4: (("2", -0.6931), ("1", -0.6931)), 6: (("1", 0.0),), 8: (("0", -0.1), ("9", -3.0))}
    likely = tuple(near.get(i, ()) for i in range(len(tokens)))
    answer = Completion.of("".join(tokens), tokens=tokens, top_logprobs=likely)
    found = one(Likely(lambda _: answer), protocol="single", score_mode="token-weighted")
    assert found.scores.raw == pytest.approx({"sp": 1.5, "g_1": 1, "g_2": 0})
    plain = Completion.of("".join(tokens))
    lost = one(Likely(lambda _: plain), protocol="single", score_mode="token-weighted")
    assert (lost.status, lost.scores) == ("unscored", None)


# -- judges without a model


def test_metrics_judge_by_thresholds() -> None:
    rule = MetricJudge(lambda item: len(item.candidate), [3, 10], name="length")
    found = one(rule, protocol="single")
    assert (found.scores["sp"], found.transcript[0].reason) == (1, "length = 6")
    with pytest.raises(ConfigError, match="has 3 levels, which 2 thresholds cut"):
        one(MetricJudge(lambda _: 1.0, [1]), protocol="single")
    nothing = one(MetricJudge(lambda _: float("nan"), [1, 2]), protocol="single")
    assert (nothing.status, nothing.scores) == ("unscored", None)
    with pytest.raises(ConfigError, match="must rise"):
        MetricJudge(lambda _: 1.0, [2, 1])


def test_oracles_are_as_noisy_as_they_say() -> None:
    human = {"sp": 2, "g_1": 2, "g_2": 2}
    items = [Item(id=str(n), task="zero", candidate="x", meta={"human": human}) for n in range(400)]

    def wrong(*engines: object, **options: object) -> set[str]:
        team = dict(zip(("A", "B", "judge"), engines, strict=False))
        found = judge(items, RUBRIC, team if len(engines) > 1 else engines[0], **options)
        return {one.id for one in found if one.total != 6}

    noisy = NoisyOracle(noise=0.3, seed=1)
    single = wrong(noisy, protocol="single")
    assert 0.15 < len(single) / 400 < 0.25  # a third of the random levels is right
    debate = wrong(noisy, noisy, NoisyOracle(noise=0.2, seed=2))
    assert len(debate) < 0.7 * len(single)
    shared = NoisyOracle(noise=0.3, seed=1, shared=1.0)
    assert wrong(shared, shared, shared) == wrong(shared, protocol="single")
    with pytest.raises(DataError, match="Item '7' has no score of people"):
        one(noisy, protocol="single")


# -- what judges see, and what is refused


def test_a_reference_is_shown_only_where_the_rubric_says_so() -> None:
    item = ITEM.model_copy(update={"reference": "The reference.", "context": "The context."})
    for reads, is_shown in ((["source"], False), (["source", "reference"], True)):
        engine = Recorder(says(1))
        criteria = [one.model_dump() for one in RUBRIC.criteria]
        judge([item], Rubric(id="r", reads=reads, criteria=criteria), engine, protocol="single")
        text = engine.requests[0].messages[-1].text
        assert ("The reference." in text) == is_shown
        assert "The context." in text
        assert "m" not in text.split()  # the system's name


def test_schemas_are_used_where_engines_have_them() -> None:
    engine = Recorder(says(1))
    one(engine, protocol="single")
    schema = json.loads(engine.requests[0].constraint.text)
    assert list(schema["properties"]) == ["thoughts", "sp", "g_1", "g_2"]

    class Refuses(Recorder):
        async def complete(self, request: Request) -> Completion:
            if request.constraint is not None:
                raise CapabilityError("no schemas here")
            return await super().complete(request)

    assert one(Refuses(says(1)), protocol="single").status == "ok"
    free = Recorder(says(1))
    free.capabilities = frozenset()
    assert one(free, protocol="single").status == "ok"
    assert free.requests[0].constraint is None


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([ITEM, ITEM], DataError, "Two items have the `id` '7'"),
        ([Item(id="3", task="idiom", candidate="x")], MissingSourceError, "Item '3' needs"),
        (
            [Item(id="3", task="idiom", candidate="x", source="<a><b><c>")],
            MissingSourceError,
            "<a>",
        ),
        ([Item(id="3", task="poem", source="x", candidate="x")], UnknownNameError, "item '3'"),
        ([Item(id="3", source="x", candidate="x")], UnknownNameError, "item '3'"),
    ],
)
def test_wrong_items_are_refused_before_any_call(
    items: Sequence[Item], error: type[Exception], message: str
) -> None:
    engine = Recorder(says(1))
    with pytest.raises(error, match=message):
        judge(items, RUBRIC, engine)
    assert engine.requests == []


@pytest.mark.parametrize(
    ("engines", "options", "message"),
    [
        ([], {}, "`engines` is empty"),
        ([Recorder("a")] * 4, {}, "takes at most 3"),
        ({"referee": Recorder("a")}, {}, "No role of a judge is named 'referee'"),
        (Recorder("a"), {"rounds": 3}, "Known: .*max_rounds"),
        (Recorder("a"), {"max_rounds": 0}, "`max_rounds`"),
        (Recorder("a"), {"protocol": "court"}, "`protocol`"),
        (Recorder("a"), {"concurrency": 0}, "`concurrency` is 0"),
        (Recorder("a"), {"max_cost": 1.0}, "no price is given"),
    ],
)
def test_wrong_settings_are_refused(engines: object, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        one(engines, **options)


def test_an_engine_that_never_answers_ends_the_run() -> None:
    items = [Item(id=str(n), task="idiom", source="x", candidate="x") for n in range(40)]
    with pytest.raises(EngineError, match="None of 20 calls was answered: refused"):
        judge(items, RUBRIC, Recorder(EngineError("refused")))
    assert one(Recorder(EngineError("refused"))).status == "unscored"


async def _in_a_running_loop() -> None:
    (found,) = await ajudge([ITEM], RUBRIC, Recorder(says(1)), protocol="single")
    assert found.total == 3
    assert one(Recorder(says(1)), protocol="single").total == 3


def test_async_form() -> None:
    asyncio.run(_in_a_running_loop())
