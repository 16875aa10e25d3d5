"""What a judge's reply says: strict about what is a score, lenient about how it is written.

A reply that cannot be read has no score; it is never 0. Nothing here guesses: values outside of the
scale are not clamped, two different values for one criterion are none, and what a reply repeats of
the candidate is not the judge's word.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hanol.evaluation.judging._rubric import Criterion, Rubric
from hanol.evaluation.judging.replies._objects import (
    FoundObjects,
    NotOne,
    find_objects,
    folded,
    plain_signs,
)
from hanol.evaluation.judging.replies._refusal import is_refusal

ReplyRole = Literal["scorer", "judge"]
_LONGEST = 100_000  # characters of a reply that are read; the parser's time stays in milliseconds
_VERDICTS = {"yes": "yes", "no": "no", "是": "yes", "否": "no"}
_VERDICT_KEYS = ("judge", "verdict", "consensus", "agreement", "agree")
_REASON_KEYS = (
    "thoughts",
    "judgereasons",
    "reasons",
    "reason",
    "reasoning",
    "explanation",
    "rationale",
)
_TWICE = "it gives two different values for one key"
_UNIT = r"\s*(?:分|점(?:을|이|은|는|으로|이다|임|입니다)?|points?|pts?\.?)?"
_NUMBER = re.compile(
    rf"(-?(?:0|[1-9][0-9]{{0,3}}))(?:\.0+)?(?:\s*/\s*([1-9][0-9]{{0,3}})|{_UNIT})[.!]?"
)


@dataclass(frozen=True)
class Reply:
    """What was read from a reply.

    Args:
        status: "ok" as it should be, "repaired" when its form was wrong but its scores are certain,
            "invalid" without a score.
        scores: By criterion; None where there are none: an invalid reply, a judge that says no.
        verdict: Of a judge: whether it has decided.
        reason: Its reasons, in its own words.
        reasons: Those of single criteria, where it gave some.
        flags: What was unusual: "multiple_objects", "regex", "quoted", "refusal" and others.
        problem: Why it is invalid, in words that can be quoted back to the judge.
    """

    status: Literal["ok", "repaired", "invalid"]
    scores: dict[str, int] | None = None
    verdict: Literal["yes", "no"] | None = None
    reason: str = ""
    reasons: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    problem: str | None = None


def parse_reply(
    text: str,
    rubric: Rubric,
    role: ReplyRole = "scorer",
    *,
    candidate: str = "",
    only: str | None = None,
) -> Reply:
    """Read scores, and of a judge its verdict, from a reply; it never raises.

    Args:
        text: The reply as it came, with reasoning, prose, code fences or whatever is around.
        rubric: Its criteria and scales.
        role: A judge has a verdict; where it is no, scores are not needed.
        candidate: The text that was judged: objects that stand in it are quotations.
        only: The one criterion that was asked for; others are passed over.
    """
    try:
        return _parse(text, _Reader(rubric, role, candidate, only))
    except (RecursionError, MemoryError):
        return Reply("invalid", problem="it is nested too deeply")


def _parse(text: str, reader: "_Reader") -> Reply:
    text = str(text)[-_LONGEST:].strip("\ufeff\u200b\u200c\u200d\u2060 \t\r\n")
    objects = find_objects(text)
    text, objects, is_open = _without_thoughts(text, objects)
    if is_open:
        return Reply("invalid", flags=("truncated",), problem="its reasoning was not finished")
    if not text:
        return Reply("invalid", flags=("empty",), problem="it is empty")
    found = [reader.read(one) for one in objects.values]
    valid = [one for one in found if one is not None and one.status != "invalid"]
    if objects.tail is not None:  # cut off, or a brace in prose
        tail = reader.read(objects.tail)
        if not valid or (tail is not None and tail.problem == _TWICE):
            found.append(tail)
    if not any(found):
        found.append(reader.read_lines(text))
    said = [one for one in found if one is not None]
    # Two values for one thing: which of them the judge means is not ours to say.
    valid = [one for one in said if one.status != "invalid" or one.problem == _TWICE]
    flags = reader.flags + (("multiple_objects",) if len(valid) > 1 else ())
    if valid and not any(one.problem == _TWICE for one in valid):
        return replace(valid[-1], flags=valid[-1].flags + flags)
    if is_refusal(text):
        return Reply("invalid", flags=(*flags, "refusal"), problem="it refuses")
    wrong = next((one.problem for one in reversed(said)), None)
    return Reply("invalid", flags=flags, problem=wrong or "it holds no JSON object with the scores")


def _without_thoughts(text: str, objects: FoundObjects) -> tuple[str, FoundObjects, bool]:
    """What follows the reasoning, and whether that never ended.

    A tag inside of an object is a quotation of the candidate, and ends nothing.
    """

    def outside(tag: str) -> list[int]:
        places = (found.start() for found in re.finditer(tag, text, re.IGNORECASE))
        return [at for at in places if not any(a < at < b for a, b in objects.strict)]

    ends, begins = outside("</think>"), outside("<think>")
    end = ends[-1] if ends else -1
    if any(begin > end for begin in begins):
        return text, objects, True
    if end < 0:
        return text, objects, False
    text = text[end + len("</think>") :].strip("\ufeff\u200b \t\r\n")
    return text, find_objects(text), False


class _Reader:
    """Reads objects and lines by the criteria of a rubric."""

    def __init__(self, rubric: Rubric, role: ReplyRole, candidate: str, only: str | None) -> None:
        self._criteria = {one.id: one for one in rubric.criteria if only in (None, one.id)}
        self._role = role
        self._names = _names(rubric)
        self._quoted = find_objects(candidate).contents if "{" in plain_signs(candidate) else []
        self._candidate = folded(plain_signs(candidate))
        self.flags: tuple[str, ...] = ()
        names = [*self._names, *(_VERDICT_KEYS if role == "judge" else ())]
        known = "|".join(r"[_ \-]?".join(name) for name in sorted(names, key=len, reverse=True))
        self._pair = re.compile(
            rf"(?:^|[{{,;|\n])[\s\-*•>#\"'`]*({known})[\s\"'*`]*[:=][\s\"'*`]*"
            r"(?:\{[\s\"']*(?:score|value)[\"']?\s*:[\s\"']*)?([^,;|\n}\"'`]*)",
            re.IGNORECASE,
        )

    def read(self, found: Any) -> Reply | None:
        """The reply of one object; None where it is none of ours, a template or a quotation."""
        if isinstance(found, NotOne):
            if not found.conflict:
                return self._pairs(found.text, ())
            return Reply("invalid", problem=_TWICE) if self._known(found.conflict) else None
        value, status = found
        if value in self._quoted:
            self.flags = tuple(dict.fromkeys((*self.flags, "quoted")))
            return None
        if (keys := self._keyed(value)) is None:
            return Reply("invalid", problem=_TWICE)
        if not set(keys) & set(self._criteria):
            inner = [one for one in value.values() if isinstance(one, dict)]
            inner = [made for one in inner if isinstance(made := self._keyed(one), dict)
                     and set(made) & set(self._criteria)]  # fmt: skip
            if len(inner) > 1:
                return Reply("invalid", problem="it has several sets of scores in one object")
            keys = keys | (inner[0] if inner else {})
        if not set(keys) & (
            {*self._criteria, "verdict"} if self._role == "judge" else {*self._criteria}
        ):
            return None
        said = [keys[name] for name in self._criteria if name in keys]
        words = all(isinstance(one, str) and not re.search("[0-9０-９]", one) for one in said)
        echo = isinstance(keys.get("verdict"), str) and re.search(
            r"yes\W+(?:or\W+)?no", keys["verdict"], re.I
        )
        if (said and words) or echo:
            return None  # a template that is repeated, such as {"sp": "your score"}
        return self._decided(keys, status, ())

    def _keyed(self, value: Mapping[Any, Any]) -> dict[str, Any] | None:
        """The values under the rubric's ids; None where one stands there twice."""
        made: dict[str, Any] = {}
        for key, one in value.items():
            if (name := self._known(str(key))) is None:
                continue
            if name in made and made[name] != one and name != "reason":
                return None
            made[name] = one
        return made

    def _known(self, key: str) -> str | None:
        key = re.sub(r"[\s_\-]", "", folded(key))
        if (name := self._names.get(key)) is not None:
            return name if name in self._criteria else None
        if self._role == "judge" and key in _VERDICT_KEYS:
            return "verdict"
        return "reason" if key in _REASON_KEYS else None

    def _decided(self, keys: Mapping[str, Any], status: Any, flags: tuple[str, ...]) -> Reply:
        """The reply of values by id."""
        verdict, problem = None, None
        if self._role == "judge" and (verdict := _verdict(said := keys.get("verdict"))) is None:
            return Reply(
                "invalid", flags=flags, problem=f"`judge` is {said!r:.80}, but must be yes or no"
            )
        scores: dict[str, int] = {}
        for name, criterion in self._criteria.items():
            score, problem = _score(keys.get(name), criterion)
            if score is None:
                break
            scores[name] = score
        if problem is not None and verdict != "no":
            return Reply("invalid", flags=flags, problem=problem)
        reasons = {name: str(one["reason"]) for name in self._criteria
                   if isinstance(one := keys.get(name), dict) and one.get("reason")}  # fmt: skip
        said = keys.get("reason", "")
        return Reply(status, None if problem else scores, verdict,
                     said if isinstance(said, str) else str(said), reasons, flags)  # fmt: skip

    def read_lines(self, text: str) -> Reply | None:
        """The reply of "key: value" lines."""
        return self._pairs(text, ("regex",))

    def _pairs(self, text: str, flags: tuple[str, ...]) -> Reply | None:
        """The reply of pairs in broken JSON or lines; what stands in the candidate is none."""
        text = folded(plain_signs(text), case=False)
        keys: dict[str, Any] = {}
        for found in self._pair.finditer(text):
            name = self._known(found[1])
            if name is None or name == "reason":
                continue
            shown = found[0].strip("{,;|\n \t-*•>#\"'`")
            if self._candidate and folded(shown) in self._candidate:
                self.flags = tuple(dict.fromkeys((*self.flags, "quoted")))
                return Reply("invalid", problem="its form is broken where it quotes the candidate")
            value = found[2].strip(" \t*_`")
            note = re.fullmatch(r"([^(]*?)\s*\([^0-9]*\)?", value)  # 2 (idiomatic)
            value = note[1] if note else value
            is_list = re.match(r",\s*[0-9]", text[found.end() : found.end() + 8])
            if is_list or keys.setdefault(name, value) != value:
                return Reply("invalid", problem=_TWICE)
            if found.end() == len(text) and name != "verdict":
                # A number at the very end may have lost digits.
                most = max(self._criteria[name].scale)
                if most > 9 and value and value[-1].isdecimal() and "regex" not in flags:
                    return Reply("invalid", problem="it was cut off")
        if not keys:
            return None
        return self._decided(keys, "repaired", flags)


def _names(rubric: Rubric) -> dict[str, str]:
    """Ids by every name that a key may have, folded and without underscores."""
    made: dict[str, str] = {}
    general = 0
    specific = [one for one in rubric.criteria if one.kind == "specific"]
    for one in rubric.criteria:
        general += one.kind == "general"
        also = [f"general{general}", f"g{general}"] if one.kind == "general" else []
        for name in [*also, *(["specific", "sp"] if specific == [one] else [])]:
            made.setdefault(name, one.id)
    own = {re.sub(r"[\s_\-]", "", folded(one.id)): one.id for one in rubric.criteria}
    return made | own


def _verdict(value: Any) -> Literal["yes", "no"] | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        return None
    found = _VERDICTS.get(folded(value).strip().rstrip(".!。,，;").strip())
    return "yes" if found == "yes" else "no" if found == "no" else None


def _score(value: Any, criterion: Criterion) -> tuple[int | None, str | None]:
    """A score of the scale, or what is wrong with it."""
    if isinstance(value, dict):
        value = next((value[name] for name in ("score", "value") if name in value), None)
    if value is None:
        return None, f"`{criterion.id}` is missing"
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and (found := _NUMBER.fullmatch(folded(value).strip())):
        number = int(found[1])
        if found[2] is not None and int(found[2]) != criterion.scale[-1]:
            return None, f"`{criterion.id}` is {value!r:.40}, but the most is {criterion.scale[-1]}"
    if number not in criterion.scale:
        scale = ", ".join(map(str, criterion.scale))
        return None, f"`{criterion.id}` is {value!r:.40}, but must be one of {scale}"
    return number, None
