"""The judge: what counts as a verdict, and what happens to everything else."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence

import pytest

from hanol.engines import Completion, Message, Request, Sampling, Usage
from hanol.errors import ConfigError, DataError, EngineError
from hanol.evaluation import JUDGE_PROMPT, Evaluation, Judge, Question, Verdict, evaluate
from hanol.scoring import exact_match, numeric_match

SHORT_PROMPT = "{question} / {response} / {reference}"


class FakeEngine:
    """Replies by a function of the prompt and of how often it was asked."""

    name = "fake:judge"
    context_window = None
    capabilities = frozenset()
    default_sampling = Sampling()

    def __init__(self, reply: Callable[[str, int], str]) -> None:
        self._reply = reply
        self.requests: list[Request] = []
        self.running = self.most_running = 0

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        prompt = request.messages[0].content
        asked = sum(other.messages[0].content == prompt for other in self.requests)
        return Completion.of(self._reply(prompt, asked), usage=Usage(1, 1))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 1

    async def aclose(self) -> None:
        pass


def says(*replies: str) -> FakeEngine:
    return FakeEngine(lambda _, asked: replies[min(asked, len(replies)) - 1])


def verdict_json(correct: str = "yes", **more: object) -> str:
    reply = {"extracted_final_answer": "4", "reasoning": "equal", "correct": correct}
    return json.dumps(reply | {"confidence": 90} | more)


def ask(engine: FakeEngine, form: str = "json", attempts: int = 1) -> Verdict:
    judge = Judge(engine, form=form, attempts=attempts)
    return asyncio.run(judge.judge("2+2?", "4", "4"))


def test_a_verdict_keeps_everything_needed_to_check_it() -> None:
    raw = verdict_json()
    verdict = ask(says(raw))
    assert verdict.status == "correct"
    assert (verdict.extracted_final_answer, verdict.reasoning, verdict.confidence) == (
        "4",
        "equal",
        90,
    )
    assert verdict.judge == "fake:judge"
    assert verdict.prompt_sha256 == hashlib.sha256(JUDGE_PROMPT.encode()).hexdigest()
    assert verdict.raw == raw


@pytest.mark.parametrize(
    "reply",
    [
        verdict_json("no"),
        verdict_json(" No "),
        "```json\n" + verdict_json("no") + "\n```",
        '<think>It is correct: yes. {"correct": "yes"}</think>\n' + verdict_json("no"),
        verdict_json("no", confidence="85%"),
        verdict_json("no", extracted_final_answer=None),
    ],
)
def test_forms_of_no(reply: str) -> None:
    assert ask(says(reply)).status == "incorrect"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "yes",
        "Answer: incorrect",
        "Absolutely not",
        " correct",
        "correct: yes",
        verdict_json("correct"),
        verdict_json("yes, but no"),
        verdict_json("maybe"),
        verdict_json(confidence=101),
        verdict_json(confidence="high"),
        '{"correct": "yes"}',
        '{"extracted_final_answer": "4", "reasoning": "r", "correct": true}',
        '{"extracted_final_answer": "4", "reasoning": "r", "correct": "no", "correct": "yes"}',
        "[" + verdict_json() + "]",
        "Here it is: " + verdict_json(),
        verdict_json("no") + verdict_json("yes"),
        "[" * 100_000,
        "null",
    ],
)
def test_what_is_no_verdict_is_an_error(reply: str) -> None:
    engine = says(reply)
    verdict = ask(engine, attempts=3)
    assert verdict.status == "error"
    assert verdict.raw == reply
    assert verdict.attempts == len(engine.requests) == 3


def test_asked_again_the_judge_may_say_it_properly() -> None:
    engine = says("Absolutely not", verdict_json())
    verdict = ask(engine, attempts=3)
    assert (verdict.status, verdict.attempts) == ("correct", 2)
    assert [request.sampling.temperature for request in engine.requests] == [0.0, 0.7]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("Correct", "correct"),
        (" correct", "correct"),
        ("**Correct**.", "correct"),
        ("Judgement: Correct", "correct"),
        ("Incorrect", "incorrect"),
        ("Answer: incorrect", "incorrect"),
        ("Absolutely not", "error"),
        ("A", "error"),
        ("All right", "error"),
        ("not correct", "error"),
        ("Correct. No, incorrect", "error"),
        ("", "error"),
    ],
)
def test_verdicts_in_a_word(reply: str, status: str) -> None:
    assert ask(says(reply), "word").status == status


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("A", "correct"),
        ("b.", "incorrect"),
        ("Grade: C", "not_attempted"),
        ("Absolutely not", "error"),
        ("AB", "error"),
    ],
)
def test_verdicts_in_a_letter(reply: str, status: str) -> None:
    assert ask(says(reply), "letter").status == status


def test_fields_are_filled_in_once() -> None:
    engine = says(verdict_json())
    judge = Judge(engine, SHORT_PROMPT)
    asyncio.run(judge.judge("{reference}?", "{question} {0} {", ["x", "y"]))
    assert engine.requests[0].messages == (
        Message("user", "{reference}? / {question} {0} { / x OR y"),
    )


def test_a_prompt_needs_its_fields() -> None:
    with pytest.raises(ConfigError, match=r"has no \{reference\}"):
        Judge(says(""), "{question} {response}")
    with pytest.raises(ConfigError, match="`attempts` is 0"):
        Judge(says(""), attempts=0)


def test_a_judge_that_is_down_is_an_error_with_its_reason() -> None:
    def fail(prompt: str, asked: int) -> str:
        raise EngineError("401: the key was refused")

    verdict = ask(FakeEngine(fail), attempts=3)
    assert (verdict.status, verdict.raw, verdict.attempts) == (
        "error",
        "401: the key was refused",
        1,
    )


QUESTIONS = [
    Question("a", "Capital of France?", "Paris"),
    Question("b", "Capital of France?", "paris"),  # the same text: two questions all the same
    Question("c", "2+2?", ("4", "four")),
]
RUNS = [
    {"a": "Paris", "b": "Lyon", "c": "4"},
    {"a": "Lyon", "b": "Lyon", "c": "Four."},
    {"a": "Paris", "b": None, "c": "5"},
    {"a": "Paris", "c": ""},
]


def test_scores_of_any_number_of_runs_by_id() -> None:
    result = evaluate(RUNS, QUESTIONS, exact_match)
    assert result.outcomes == {
        "a": (True, False, True, True),
        "b": (False, False, False, False),
        "c": (True, True, False, False),
    }
    assert result.k == 4
    assert result.scores.runs == pytest.approx((2 / 3, 1 / 3, 1 / 3, 1 / 3))
    assert result.scores.avg_at_k.value == pytest.approx(5 / 12)
    assert result.scores.any_of_k.value == pytest.approx(2 / 3)
    assert result.scores.best_pass_at_1.value == pytest.approx(2 / 3)
    assert result.unanswered == (("b", 3), ("b", 4), ("c", 4))
    assert result.errors == ()
    plain = result.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["avg_at_k"]["value"] == 0.4167
    assert plain["metric"] == "exact_match"
    assert plain["judge"] is None
    assert set(plain["spent"].values()) == {0}


def test_a_tolerance_keeps_the_metrics_name() -> None:
    from functools import partial

    result = evaluate([{"c": "4.1"}], QUESTIONS[2:], partial(numeric_match, tol=0.05))
    assert result.metric == "numeric_match"
    assert result.scores.avg_at_k.value == 1.0


def judged(reply: Callable[[str, int], str], runs=RUNS[:2]) -> tuple[Evaluation, FakeEngine]:
    engine = FakeEngine(reply)
    return evaluate(runs, QUESTIONS, Judge(engine, SHORT_PROMPT, attempts=2)), engine


def test_judged_scores_keep_their_verdicts() -> None:
    result, _ = judged(lambda prompt, _: verdict_json("yes" if "Paris /" in prompt else "no"))
    assert result.outcomes == {"a": (True, False), "b": (False, False), "c": (False, False)}
    assert result.metric == "judge"
    assert result.judge == "fake:judge"
    assert result.prompt_sha256 == hashlib.sha256(SHORT_PROMPT.encode()).hexdigest()
    assert result.verdicts is not None
    assert result.verdicts["a"][0].reasoning == "equal"
    plain = result.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["verdicts"]["a"][1]["raw"] == verdict_json("no")


def test_errors_of_the_judge_are_no_wrong_answers() -> None:
    result, _ = judged(
        lambda prompt, _: "Absolutely not" if "Lyon" in prompt else verdict_json("yes")
    )
    assert result.outcomes == {"a": (True, None), "b": (None, None), "c": (True, True)}
    assert result.errors == (("a", 2), ("b", 1), ("b", 2))
    assert result.scores.runs == (1.0, 1.0)
    assert result.scores.any_of_k.value == 1.0


def test_a_judge_that_never_answers_gives_no_score() -> None:
    with pytest.raises(DataError, match="Run 1 has no verdict at all"):
        judged(lambda *_: "?")


def test_an_evaluation_has_the_cost_of_its_own_judgements() -> None:
    judge = Judge(says(verdict_json()), SHORT_PROMPT)
    for _ in range(2):
        result = evaluate(RUNS[:1], QUESTIONS, judge)
        assert (result.spent.model_calls, result.spent.generated_tokens) == (3, 3)
        assert result.spent.seconds > 0
        assert result.to_dict()["spent"]["prompt_tokens"] == 3


def test_nothing_is_judged_where_nothing_was_answered() -> None:
    result, engine = judged(lambda *_: verdict_json(), RUNS[3:])
    assert len(engine.requests) == 1
    assert (result.spent.model_calls, result.spent.tokens) == (1, 2)
    assert result.outcomes == {"a": (True,), "b": (False,), "c": (False,)}
    assert result.verdicts is not None
    assert result.verdicts["b"] == (None,)


def test_answers_are_judged_side_by_side_within_the_limit() -> None:
    questions = [Question(str(i), f"q{i}", "x") for i in range(100)]
    engine = FakeEngine(lambda *_: verdict_json())
    evaluate([{q.id: "x" for q in questions}], questions, Judge(engine))
    assert engine.most_running == 16


@pytest.mark.parametrize(
    ("runs", "questions", "match"),
    [
        ([{"a": "x", "z": "y"}], QUESTIONS, "Run 1 answers 1 questions .* 'z'"),
        ([{"a": "x"}], [*QUESTIONS, QUESTIONS[0]], "Two questions have the id 'a'"),
        ([], QUESTIONS, "same number > 0"),
        ([{}], [], "no questions"),
    ],
)
def test_files_that_do_not_belong_together(runs, questions, match: str) -> None:
    with pytest.raises(DataError, match=match):
        evaluate(runs, questions, exact_match)
