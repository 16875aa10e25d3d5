"""Small tasks with answers that a program checks: sums, word problems, capitals, instructions.

For models that can do some of this some of the time, which is where the choice of temperature and
top-p matters. All of it is made here, by templates. A task is held out by a hash of what it asks
for and not of how it asks, so no wording of a held-out task is among the others.
"""

import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from hanol.errors import ConfigError, DataError, UnknownNameError
from hanol.scoring import check_answer
from hanol.worlds._problems._problem import is_kept_for_tests

_TRIES = 200  # draws in vain after which a kind of tasks counts as used up

# Capitals as most reference works give them.
_CAPITALS = dict(
    pair.split(":")
    for pair in """
Afghanistan:Kabul|Albania:Tirana|Algeria:Algiers|Angola:Luanda|Argentina:Buenos Aires|
Armenia:Yerevan|Australia:Canberra|Austria:Vienna|Azerbaijan:Baku|Bahrain:Manama|Bangladesh:Dhaka|
Belarus:Minsk|Belgium:Brussels|Bhutan:Thimphu|Botswana:Gaborone|Brazil:Brasília|Bulgaria:Sofia|
Cambodia:Phnom Penh|Cameroon:Yaoundé|Canada:Ottawa|Chad:N'Djamena|Chile:Santiago|China:Beijing|
Colombia:Bogotá|Costa Rica:San José|Croatia:Zagreb|Cuba:Havana|Cyprus:Nicosia|Denmark:Copenhagen|
Ecuador:Quito|Egypt:Cairo|Estonia:Tallinn|Ethiopia:Addis Ababa|Fiji:Suva|Finland:Helsinki|
France:Paris|Georgia:Tbilisi|Germany:Berlin|Ghana:Accra|Greece:Athens|Guinea:Conakry|
Haiti:Port-au-Prince|Honduras:Tegucigalpa|Hungary:Budapest|Iceland:Reykjavik|India:New Delhi|
Indonesia:Jakarta|Iran:Tehran|Iraq:Baghdad|Ireland:Dublin|Italy:Rome|Jamaica:Kingston|Japan:Tokyo|
Jordan:Amman|Kenya:Nairobi|Kuwait:Kuwait City|Kyrgyzstan:Bishkek|Laos:Vientiane|Latvia:Riga|
Lebanon:Beirut|Libya:Tripoli|Lithuania:Vilnius|Madagascar:Antananarivo|Mali:Bamako|Malta:Valletta|
Mexico:Mexico City|Moldova:Chisinau|Mongolia:Ulaanbaatar|Morocco:Rabat|Mozambique:Maputo|
Nepal:Kathmandu|New Zealand:Wellington|Nicaragua:Managua|Niger:Niamey|Nigeria:Abuja|
North Korea:Pyongyang|Norway:Oslo|Oman:Muscat|Pakistan:Islamabad|Panama:Panama City|
Paraguay:Asunción|Peru:Lima|the Philippines:Manila|Poland:Warsaw|Portugal:Lisbon|Qatar:Doha|
Romania:Bucharest|Russia:Moscow|Rwanda:Kigali|Saudi Arabia:Riyadh|Senegal:Dakar|Serbia:Belgrade|
Singapore:Singapore|Slovakia:Bratislava|Slovenia:Ljubljana|Somalia:Mogadishu|South Korea:Seoul|
Spain:Madrid|Sudan:Khartoum|Sweden:Stockholm|Syria:Damascus|Tajikistan:Dushanbe|Thailand:Bangkok|
Tunisia:Tunis|Turkey:Ankara|Uganda:Kampala|Ukraine:Kyiv|the United Kingdom:London|
the United States:Washington|Uruguay:Montevideo|Uzbekistan:Tashkent|Venezuela:Caracas|
Vietnam:Hanoi|Yemen:Sanaa|Zambia:Lusaka|Zimbabwe:Harare
""".replace("\n", "").split("|")
)

_NAMES = ("Ada", "Ben", "Carla", "Daniel", "Emma", "Hana", "Jun", "Lily", "Maria", "Omar", "Tom")
_THINGS = ("apples", "books", "coins", "cookies", "eggs", "marbles", "oranges", "pencils", "stamps")
_BOXES = ("bags", "boxes", "baskets", "jars")
_WORDS = (
    "apple", "beach", "bread", "bridge", "candle", "castle", "cat", "cloud", "coffee", "dog",
    "dream", "family", "farmer", "fire", "fish", "flower", "forest", "friend", "garden", "grass",
    "horse", "island", "kitchen", "lake", "letter", "lion", "market", "milk", "moon", "mountain",
    "music", "night", "ocean", "paper", "pencil", "rain", "river", "road", "salt", "school",
    "silver", "snow", "star", "stone", "storm", "summer", "sun", "table", "teacher", "tiger",
    "train", "tree", "valley", "village", "water", "whale", "window", "winter", "wolf", "yellow",
)  # fmt: skip
_GROUPS = (
    "animals", "birds", "board games", "capital cities", "cars", "colours", "countries", "desserts",
    "drinks", "flowers", "fruits", "insects", "jobs", "languages", "metals", "months", "mountains",
    "musical instruments", "oceans", "planets", "rivers", "school subjects", "shapes", "spices",
    "sports", "tools", "trees", "vegetables",
)  # fmt: skip
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
_FIELDS = (
    ("name", "age"), ("title", "author"), ("city", "country"), ("name", "price"), ("day", "month"),
    ("colour", "size"), ("product", "price", "stock"), ("name", "email"), ("team", "score"),
    ("make", "model", "year"), ("title", "year"), ("name", "job", "city"), ("animal", "legs"),
    ("id", "status"), ("first", "last"), ("from", "to"), ("lat", "lon"), ("word", "length"),
)  # fmt: skip


@dataclass(frozen=True)
class SmallTask:
    """A question, and how a reply to it is checked.

    Attributes:
        kind: "sum", "story" (a word problem), "capital" or "instruction".
        question: What a user would write.
        answer: The right answer; of an instruction one reply that would do.
        check: How a reply is judged: "number", the reply's number is the answer; "capital", it
            names the answer and no other capital; "lines N", exactly N different lines of a few
            words; "contains WORD N", one sentence of at most N words with the word; "starts TEXT",
            one sentence that begins so; "keys A B", a JSON object with these keys; "count A B",
            the numbers from A to B.
    """

    kind: str
    question: str
    answer: str
    check: str


class _Row(Protocol):
    @property
    def answer(self) -> str | None: ...

    @property
    def extra(self) -> Any: ...

    @property
    def where(self) -> str: ...


# A draw gives what is asked for, the wordings to choose from, the answer, and the check.
_Drawn = tuple[str, Sequence[str], str, str]


def _sum(rng: random.Random) -> _Drawn:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    if rng.random() < 0.15:
        a = rng.randint(10, 60)
    sign, value = "+", a + b
    if rng.random() < 0.3 and a >= b:
        sign, value = "-", a - b
    forms = (
        f"What is {a} {sign} {b}? Answer with the number only.",
        f"State the final answer to this problem: {a} {sign} {b} =",
    )
    return f"{a}{sign}{b}", forms, str(value), "number"


def _story(rng: random.Random) -> _Drawn:
    who, other = rng.sample(_NAMES, 2)
    thing, box = rng.choice(_THINGS), rng.choice(_BOXES)
    a, b = sorted((rng.randint(2, 12), rng.randint(1, 9)), reverse=True)
    which = rng.randrange(3)
    if which == 0:
        begin, value = f"{who} has {a} {thing}. {other} gives {who} {b} more", a + b
    elif which == 1:
        begin, value = f"{who} has {a} {thing}. {who} gives {b} of them to {other}", a - b
    else:
        a, b = rng.randint(2, 5), rng.randint(2, 6)
        begin, value = f"{who} has {a} {box} with {b} {thing} in each", a * b
    asked = f"How many {thing} does {who} have now? Answer in one short sentence."
    return f"{which} {a} {b}", (f"{begin}. {asked}",), str(value), "number"


def _capital(rng: random.Random) -> _Drawn:
    country, city = rng.choice(list(_CAPITALS.items()))
    return country, (f"What is the capital of {country}?",), city, "capital"


def _instruction(rng: random.Random) -> _Drawn:
    word, group, n = rng.choice(_WORDS), rng.choice(_GROUPS), rng.randint(2, 4)
    which = rng.choice(("lines", "contains", "starts", "keys", "count"))
    if which == "lines":
        question = f"Give me a numbered list of {_NUMBERS[n]} {group}, names only."
        return f"{which} {group} {n}", (question,), "\n".join(_WORDS[:n]), f"{which} {n}"
    if which == "contains":
        question = f'Use the word "{word}" in a short sentence.'
        return f"{which} {word}", (question,), f"I like the {word}.", f"{which} {word} 25"
    if which == "starts":
        question = f'Write one sentence that starts with "The {word}".'
        return f"{which} {word}", (question,), f"The {word} is here.", f"{which} the {word}"
    if which == "keys":
        keys = rng.choice(_FIELDS)
        question = "Write a JSON object with the keys " + " and ".join(f'"{key}"' for key in keys)
        answer = json.dumps(dict.fromkeys(keys, 1))
        return f"{which} {keys}", (f"{question}.",), answer, f"{which} {' '.join(keys)}"
    begin = rng.randint(1, 40)
    end = begin + rng.randint(3, 7)
    question = f"Write the numbers from {begin} to {end}, separated by commas."
    answer = ", ".join(map(str, range(begin, end + 1)))
    return f"{which} {begin} {end}", (question,), answer, f"{which} {begin} {end}"


_KINDS: dict[str, Callable[[random.Random], _Drawn]] = {
    "sum": _sum, "story": _story, "capital": _capital, "instruction": _instruction
}  # fmt: skip


def small_tasks(
    number: int = 400,
    *,
    seed: int = 0,
    held_out: bool = False,
    kinds: Sequence[str] = tuple(_KINDS),
) -> list[SmallTask]:
    """Different tasks, the kinds in turn.

    Args:
        number: Tasks; fewer where the kinds are used up.
        seed: The same seed gives the same tasks.
        held_out: Take the quarter of tasks that is kept for evaluation, instead of the others.
        kinds: Kinds of `SmallTask`.

    Raises:
        UnknownNameError: There is no such kind.
        ConfigError: `number` is below 1, or there are no kinds.

    Example:
        >>> [task.question for task in small_tasks(2, kinds=["capital"])]
        ['What is the capital of Afghanistan?', 'What is the capital of Uganda?']
    """
    for kind in kinds:
        if kind not in _KINDS:
            raise UnknownNameError("kind of tasks", kind, _KINDS)
    if number < 1 or not kinds:
        raise ConfigError(f"`number` is {number} and `kinds` {list(kinds)}: both must have some.")
    streams = [_stream(kind, seed, held_out) for kind in dict.fromkeys(kinds)]
    found: list[SmallTask] = []
    while streams and len(found) < number:
        for stream in list(streams):
            task = next(stream, None)
            if task is None:
                streams.remove(stream)
            elif len(found) < number:
                found.append(task)
    return found


def _stream(kind: str, seed: int, held_out: bool) -> Iterator[SmallTask]:
    rng = random.Random(f"{kind} {seed} {held_out}")  # noqa: S311
    seen: set[str] = set()
    tries = 0
    while tries < _TRIES:
        asked, forms, answer, check = _KINDS[kind](rng)
        question = rng.choice(forms)
        if is_kept_for_tests(f"{kind} {asked}") != held_out or question in seen:
            tries += 1
            continue
        tries = 0
        seen.add(question)
        yield SmallTask(kind, question, answer, check)


def check_task(prompt: str, completion: str, row: _Row) -> bool:
    """Whether a reply is right, as the verifier `hanol.worlds:check_task` of training rows.

    Args:
        prompt: Not looked at.
        completion: The reply.
        row: Has the answer and, among its further keys, the "check" of a `SmallTask`; without one
            the answer is a number.

    Raises:
        DataError: There is no answer, or no such check.
    """
    name, *values = str(row.extra.get("check", "number")).split(" ")
    if row.answer is None:
        raise DataError(f'{row.where}: this verifier compares with "answer", which is missing.')
    if name not in _CHECKS:
        raise DataError(f"{row.where}: no check is named {name!r}. Known: {', '.join(_CHECKS)}.")
    try:
        return _CHECKS[name](completion.strip()[:2000], values, row.answer)
    except (IndexError, ValueError) as err:
        raise DataError(
            f"{row.where}: the check {name!r} cannot have the values {values}."
        ) from err


def _named(reply: str, values: list[str], answer: str) -> bool:
    text = f" {_letters(reply)} "
    others = {city for city in _CAPITALS.values() if city != answer}
    return f" {_letters(answer)} " in text and not any(f" {_letters(o)} " in text for o in others)


def _letters(text: str) -> str:
    """Words without accents, case and marks."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return " ".join(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))


def _lines(reply: str, values: list[str], answer: str) -> bool:
    lines = [re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", line) for line in reply.splitlines()]
    items = [line.strip(" .,").casefold() for line in lines if line.strip()]
    short = all(1 <= len(item.split()) <= 4 for item in items)
    return short and len(set(items)) == len(items) == int(values[0])


def _one_sentence(reply: str) -> bool:
    return bool(re.fullmatch(r"[^.!?\n]+[.!?]\"?", reply.strip('"')))


def _contains(reply: str, values: list[str], answer: str) -> bool:
    words = _letters(reply).split()
    found = {values[0], f"{values[0]}s"} & set(words)
    return bool(found) and len(words) <= int(values[1]) and _one_sentence(reply)


def _starts(reply: str, values: list[str], answer: str) -> bool:
    begin = _letters(" ".join(values))
    return f"{_letters(reply)} ".startswith(f"{begin} ") and _one_sentence(reply)


def _keys(reply: str, values: list[str], answer: str) -> bool:
    found = reply.find("{")  # there may be a fence around it, and words
    with suppress(ValueError, RecursionError):
        parsed, _ = json.JSONDecoder().raw_decode(reply[found:] if found >= 0 else "")
        return sorted(parsed) == sorted(values)
    return False


def _count(reply: str, values: list[str], answer: str) -> bool:
    wanted = [str(number) for number in range(int(values[0]), int(values[1]) + 1)]
    return re.findall(r"\d+", reply) == wanted


_CHECKS: dict[str, Callable[[str, list[str], str], bool]] = {
    "number": lambda reply, values, answer: check_answer(reply, answer).right,
    "capital": _named,
    "lines": _lines,
    "contains": _contains,
    "starts": _starts,
    "keys": _keys,
    "count": _count,
}
