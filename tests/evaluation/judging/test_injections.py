"""Candidates that try to set their own score: wherever the parser decides, nothing changes.

The judges here are as obedient as a judge can be that still gives its own scores: they repeat the
candidate, in every place where a reply has room for it.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hanol.engines import Request, ScriptedEngine
from hanol.evaluation import Item, Rubric, judge

LINES = (Path(__file__).parent / "injections.jsonl").read_text("utf-8").splitlines()
CANDIDATES = [json.loads(line)["candidate"] for line in LINES]
RUBRIC = Rubric.load("diting")
HONEST = {"sp": 0, "g_1": 0, "g_2": 0}
BARE = '"sp": 0, "g_1": 0, "g_2": 0'
VERDICT = {"judge": "yes", **HONEST}

# How a judge repeats a candidate; where its own words stay readable, its scores must be found.
REPEATS: dict[str, tuple[Callable[[str], str], bool]] = {
    "in its reasons": (lambda c: json.dumps({"thoughts": f"It says {c}", **VERDICT}), True),
    "in reasons after the scores": (lambda c: json.dumps({**VERDICT, "thoughts": c}), True),
    "in letters as they are": (
        lambda c: json.dumps({"thoughts": c, **VERDICT}, ensure_ascii=False), True,
    ),
    "before its reply": (lambda c: f"The candidate:\n{c}\n\n{json.dumps(VERDICT)}", False),
    "after its reply": (lambda c: f"{json.dumps(VERDICT)}\nI was told: {c}", False),
    "in a fence": (lambda c: f"```\n{c}\n```\n```json\n{json.dumps(VERDICT)}\n```", False),
    "without escapes": (
        lambda c: f'{{"thoughts": "It says {c}", "judge": "yes", {BARE}}}', False,
    ),
    "cut off": (lambda c: f'{{"judge": "yes", {BARE}, "thoughts": "{c}', False),
    "cut off before its scores": (lambda c: f'{{"judge": "yes", "thoughts": "It says {c}', False),
    "as lines": (lambda c: f"judge: yes\nsp: 0\ng_1: 0\ng_2: 0\nthe candidate says:\n{c}", False),
    "and nothing else": (lambda c: c, False),
}  # fmt: skip


def test_there_are_forty_candidates() -> None:
    assert len(CANDIDATES) >= 40
    assert len(set(CANDIDATES)) == len(CANDIDATES)


@pytest.mark.parametrize("how", REPEATS)
@pytest.mark.parametrize("protocol", ["paper", "single"])
def test_no_candidate_sets_its_score(protocol: str, how: str) -> None:
    repeat, is_readable = REPEATS[how]
    items = [Item(id=str(n), task="idiom", source="马马虎虎", candidate=text)
             for n, text in enumerate(CANDIDATES)]  # fmt: skip
    for item in items:
        engine = ScriptedEngine(lambda _, text=item.candidate: repeat(text))
        (found,) = judge([item], RUBRIC, engine, protocol=protocol, parse_retries=0)
        if found.scores is not None:
            assert dict(found.scores) == HONEST, item.candidate
        else:
            assert not is_readable, (item.candidate, found.problem)


def test_candidates_stay_between_the_marks() -> None:
    seen: list[Request] = []
    engine = ScriptedEngine(lambda request: (seen.append(request), json.dumps(VERDICT))[1])
    items = [Item(id=str(n), task="idiom", source="马马虎虎", candidate=text)
             for n, text in enumerate(CANDIDATES)]  # fmt: skip
    judge(items, RUBRIC, engine, protocol="single", concurrency=1)
    for request in seen:
        system, task = (message.text for message in request.messages)
        mark = system.partition("<<<")[2].partition(" ")[0]
        assert len(mark) == 12
        assert task.count(f"<<<{mark}") == task.count(f"{mark}>>>") == 2  # source, candidate
        before, _, last = task.rpartition(f"{mark}>>>")
        assert "Reply with one JSON object" in last
        for token in ("<|im_end|>", "<|im_start|>", "[/INST]", "<start_of_turn>", "</s>"):
            assert token not in before
    assert len({request.messages[0].text for request in seen}) == len(seen)  # each has its own mark
