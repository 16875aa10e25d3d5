"""The record of costs adds up, and a run's is computed from its events."""

from hanol.runs import Ledger, ModelAnswered, Spent, ToolReturned

ANSWER = ModelAnswered(
    number=1, time=0.0, step=1, purpose="turn", request_sha256="", text="", finish_reason="stop",
    prompt_tokens=100, completion_tokens=20, cached_tokens=60, seconds=2.0, money=0.5,
)  # fmt: skip
RESULT = ToolReturned(
    number=2, time=0.0, step=1, call=0, name="search", arguments={}, text="", sources=[],
    failed=False, seconds=1.0,
)  # fmt: skip


def test_ledgers_add_up() -> None:
    one = Ledger(1, 2, 3, 4, 5, 6, 7.0, 8.0, 9.0)
    total = one + one
    assert total == Ledger(2, 4, 6, 8, 10, 12, 14.0, 16.0, 18.0)
    one += total
    assert list(one.to_dict().values()) == [3, 6, 9, 12, 15, 18, 21.0, 24.0, 27.0, 0]
    assert sum([Ledger(prompt_tokens=1)] * 3, Ledger(generated_tokens=2)).tokens == 5


def test_what_a_run_spent_is_the_sum_of_its_events() -> None:
    spent = Spent.of((ANSWER, RESULT, ANSWER.model_copy(update={"purpose": "extract"})))
    assert spent.turns == 1
    assert spent.ledger == Ledger(
        model_calls=2,
        tool_calls=1,
        prompt_tokens=200,
        cached_tokens=120,
        generated_tokens=40,
        seconds=3.0,
        money=1.0,
    )
