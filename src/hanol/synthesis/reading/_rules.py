"""Questions about a statement, by rule."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from hanol.synthesis.reading._lexicon import Lexicon
from hanol.synthesis.reading._patterns import FIELDS, PARTS, RULES
from hanol.synthesis.reading._statements import Statement
from hanol.synthesis.reading._wording import content, word_set


@dataclass(frozen=True)
class Draft:
    """A question before its passages are searched.

    Args:
        text: The question.
        kind: Which rule or model made it.
        statement: What answers it.
        answer: The sentence or two that answer it, without a citation.
        asked: The question before words were replaced; who else answers it is judged by this.
        exact: What an answer must hold, such as a number or a name; "" for any words.
    """

    text: str
    kind: str
    statement: Statement
    answer: str
    asked: str
    exact: str = ""


def drafts(statement: Statement, topic: str, lexicon: Lexicon, rng: Random) -> Iterator[Draft]:
    """Every kind of question that the rules find for a statement, each in one wording."""
    if statement.kind == "entry":
        yield from _entry(statement, topic, rng)
    elif statement.kind == "row":
        yield from _row(statement, topic, rng)
    else:
        yield from _item(statement, lexicon, rng)
        yield from _headed(statement, lexicon, rng)
        for kind, pattern, ways in RULES:
            match = pattern.fullmatch(statement.core)
            if match is None:
                continue
            found = _values(match, lexicon)
            if found is None or (kind == "who" and not lexicon.is_person(_head(found))):
                continue
            text = _clean(rng.choice(ways).format_map(found))
            if _is_question(text) and not _UNCLEAR.search(
                text.replace("is it t", "").replace("Is it t", "")
            ):
                answer = _with_next(statement) if kind in ("how", "condition") else statement.answer
                yield Draft(
                    text, kind, statement, answer, text, found.get("n") or found.get("date", "")
                )
        yield from _parts(statement, topic, rng)


_UNCLEAR = re.compile(
    r"\b(?:it|he|she|they|them|this|these|those|his|her|their|its|I)\b$|"
    r"\b(?:it|he|she|they|them|this|these|those|his|her)\b"
)
_COUNTED = re.compile(rf"{PARTS['COUNT']} (?P<thing>[a-z]{{3,}}s)\b")
_MEASURED = re.compile(
    r"\b(?P<what>area|population|length|height|weight|size|cost|price|speed|rate|depth|width|value|"
    r"number|temperature|age|level|power|total|accuracy|error|score|limit|probability) of "
    r"(?:about |around |approximately |nearly |over |at least |up to )?(?P<n>\d[\d,.]*\d|\d)"
)


def _parts(statement: Statement, topic: str, rng: Random) -> Iterator[Draft]:
    """Questions from words of the sentence, without knowing how it is built."""
    words = statement.core.rstrip(".").split()
    if (match := _COUNTED.search(statement.core)) and match["n"] != "one":
        rest = _without(statement.core, match)
        text = f"how many {match['thing']} {_window(rest, rng, 6)}"
        yield _draft(text, "number", statement, statement.answer, match["n"])
    if match := _MEASURED.search(statement.core):
        about = topic or _window(_without(statement.core, match), rng, 6)
        asks = (f"What is the {match['what']} of {about}?", f"{match['what']} {about}")
        yield _draft(rng.choice(asks), "number", statement, statement.answer, match["n"])
    text = _window(words, rng, rng.randint(6, 10))
    if len(words) >= 9 and len(content(text)) > 2:
        yield _draft(text, "keywords", statement, statement.answer)


def _without(text: str, match: "re.Match[str]") -> list[str]:
    return f"{text[: match.start()]} {text[match.end() :]}".rstrip(". ").split()


def _window(words: list[str], rng: Random, size: int) -> str:
    """Some words in a row that begin and end with a word of their own."""
    start = rng.randrange(max(1, len(words) - size + 1))
    found = [word.strip(",;:()") for word in words[start : start + size]]
    while len(found) > 3 and found[-1].lower() in _WEAK:
        found.pop()
    while len(found) > 3 and found[0].lower() in _WEAK:
        found.pop(0)
    return _uncapital(" ".join(found))


_WEAK = word_set(
    """the a an of to in on at by for with from and or but as is are was were be been that which
    who it its their this these can may will not has have had if when than into such also"""
)


def _values(match: "re.Match[str]", lexicon: Lexicon) -> dict[str, str] | None:
    """What the ways of a rule may name; None where it would make no question."""
    found = {name: (text or "").strip() for name, text in match.groupdict().items()}
    verb = found.get("verb") or found.get("past", "")
    if verb:
        base = lexicon.base(verb)
        if base is None or (
            found.get("rest") and verb in ("its", "as", "this", "was", "is", "has")
        ):
            return None
        found["base"] = base
    if np := found.get("np", ""):
        last = np.split()[-1]
        found["which"] = f"Which {last}" if np.split()[0] in _SMALL and last.islower() else "What"
        found["a"] = "an" if np[0].lower() in "aeiou" else "a"
        found["np"] = _uncapital(np)
    if "head" in found and len(found["head"].split()) > 4:
        return None
    if "rest" in found and "tail" not in found:
        found["tail"] = " ".join(found["rest"].split()[:6])
    found["me"] = _to_me(_uncapital(found.get("if") or found.get("do", "")))
    is_past = verb == "had" or verb.endswith("ed")
    found["do"] = "did" if is_past else "do" if verb == found.get("base") else "does"
    found["Aux"] = found.get("aux", "").capitalize()
    return found


def _head(found: dict[str, str]) -> str:
    words = re.sub(r"[^\w ]", " ", found.get("head", "")).split()
    return words[-1] if words else ""


def _item(statement: Statement, lexicon: Lexicon, rng: Random) -> Iterator[Draft]:
    """What a function, an option or a command does, and which one does it."""
    if not statement.item or not statement.is_first:
        return
    name, (first, _, rest) = statement.item, statement.core.partition(" ")
    base = lexicon.base(first)
    if base is None or len(rest.split()) < 3 or rest.startswith(("is ", "are ")):
        return
    verb = first.lower() if first.endswith("s") and base != first.lower() else _third(first.lower())
    answer = f"{name} {verb} {rest}"
    rest = rest.rstrip(".")
    short = re.split(r"[,;(]| and | if | when | that | which ", rest)[0].strip()
    noun = "function" if name.endswith("()") else "option"
    asks = (f"Which {noun} {verb} {short}?", f"{noun} to {base} {short}", f"how to {base} {short}",
            f"{base} {short}", f"What {verb} {rest}?")  # fmt: skip
    yield _draft(rng.choice(asks), "which item", statement, answer, name)
    asks = (f"What does {name} do?", f"{name}", f"What is {name} for?", f"explain {name}")
    yield _draft(rng.choice(asks), "item", statement, answer)


def _headed(statement: Statement, lexicon: Lexicon, rng: Random) -> Iterator[Draft]:
    """The heading as a question about the first sentence below it."""
    heading = statement.heading
    words = heading.split()
    is_name = 1 <= len(words) <= 8 and not heading.isupper() and "=" not in heading
    if not statement.is_first or statement.item or not is_name or words[0].lower() in _WEAK:
        return
    rest = " ".join(words[1:])
    base = lexicon.base(words[0])
    if base and not words[0].endswith("ing") and (base != words[0].lower() or len(words) < 3):
        base = None  # a noun that may be a verb too
    if heading.endswith("?"):
        asks: tuple[str, ...] = (heading,)
    elif base:
        rest = _to_me(rest[:1].lower() + rest[1:] if rest[1:2].islower() else rest)
        asks = (
            f"How do I {base} {rest}?",
            f"how to {base} {rest}",
            f"{heading.lower()}",
            f"{base} {rest}",
        )
    else:
        asks = (
            heading.lower(),
            f"What about {heading}?",
            heading,
            f"Tell me about {heading}.",
            f"What is {heading}?",
        )
    yield _draft(rng.choice(asks), "heading", statement, _with_next(statement))


def _entry(statement: Statement, topic: str, rng: Random) -> Iterator[Draft]:
    """A field of a profile or a word of a glossary."""
    name, _, text = statement.text.partition(": ")
    text = text.strip().rstrip(".")
    if topic and name[0].isupper() and name != topic:
        field = name[0].lower() + name[1:] if name[1:2].islower() else name
        field = field.replace(" - ", " ")
        own = FIELDS.get(name.removesuffix(" - name").lower(), ())
        asks = [f"What is the {field} of {topic}?", f"{topic} {field}", f"{field} of {topic}",
                f"{field} {topic}?", *own, *own, *own]  # fmt: skip
        answer = (
            f"The {field} of {topic} is {text}."
            if len(field.split()) < 4 and field[-1] != "s"
            else f"{topic}, {field}: {text}."
        )
        yield _draft(rng.choice(asks).format(topic=topic), "field", statement, answer, text)
    elif name[0].islower() and len(text.split()) > 4:
        a = "an" if name[0] in "aeiou" else "a"
        asks = [f"What is {a} {name}?", f"{name}", f"meaning of {name}", f"What does {name} mean?"]
        yield _draft(rng.choice(asks), "word", statement, f"{name}: {text}.")
        asks = [
            f"What do you call {text}?",
            f"word for {text}",
            f"Which word means {text}?",
            f"{text}",
        ]
        yield _draft(rng.choice(asks), "which word", statement, f"{name}: {text}.", name)
    elif len(text.split()) > 3:
        asks = [
            f"What does {name} mean?",
            name.lower(),
            f"What is said about {name}?",
            f"What is {name}?",
        ]
        yield _draft(rng.choice(asks), "entry", statement, f"{name}: {text}.", name)


def _row(statement: Statement, topic: str, rng: Random) -> Iterator[Draft]:
    """A row of a table by its label."""
    cells = statement.text.split(" | ")
    label = (
        cells[0] if len(cells) > 1 else re.sub(r"\s*[-−]?\d[\d.,]*%?", "", statement.text).strip()
    )
    about = f" {statement.heading.lower()}" if statement.heading and rng.random() < 0.5 else ""
    if (
        not 2 < len(label) < 60
        or len(statement.text.split()) > 45
        or len(statement.text) < len(label) + 2
    ):
        return
    if re.search(r"\d", statement.text[len(label) :]) and len(cells) != 2:
        asks = [f"What are the values for {label}{about}?", label, f"row {label}{about}",
                f"results of {label}{about}", f"How does {label} do in the table?"]  # fmt: skip
    else:
        asks = [
            f"What does {label} do?",
            f"What is {label}{about}?",
            f"{label}{about}",
            f"meaning of {label}",
        ]
    yield _draft(
        rng.choice(asks), "row", statement, statement.text.replace(" | ", ": ", 1).rstrip(".") + "."
    )


def _draft(text: str, kind: str, statement: Statement, answer: str, exact: str = "") -> Draft:
    text = _clean(text)
    return Draft(text, kind, statement, answer, text, exact)


def _with_next(statement: Statement) -> str:
    """The sentence, and the next one where it is the next step."""
    goes_on = re.match(r"(?:Then|Next|Now|Click|Choose|Select|Enter|Press)\b", statement.after)
    short = len(statement.answer.split()) + len(statement.after.split()) < 40
    return f"{statement.answer}\n{statement.after}" if goes_on and short else statement.answer


def _third(verb: str) -> str:
    """The form after "it": "copies" of "copy"."""
    return re.sub("(?<![aeiou])y$", "ie", verb) + (
        "es" if re.search("(?:s|x|ch|sh|o)$", verb) else "s"
    )


def _to_me(text: str) -> str:
    text = re.sub(r"\byou are\b", "I am", text)
    text = re.sub(r"\b[Yy]ou\b(?! (?:a|the|to))", "I", text)
    return re.sub(r"\b[Yy]our\b", "my", text)


def _uncapital(text: str) -> str:
    """Small first letter, unless the word may be a name."""
    first = text.split(" ", 1)[0]
    return text[0].lower() + text[1:] if first in _SMALL else text


_SMALL = word_set(
    """The A An Any Each Every All Some Most Many No If When This You Your Users People In On For
    One There Most Both Two Three Four Five Such Several Other"""
)


def _clean(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([?.,])", r"\1", text)
    text = (
        re.sub(r"\bcannot (\S+) (.*)\?$", r"can \1 not \2?", text)
        if text.startswith("cannot")
        else text
    )
    return text[:1].upper() + text[1:] if text.endswith("?") else text


def _is_question(text: str) -> bool:
    return 2 <= len(text.split()) <= 30 and text.count("(") == text.count(")") and "  " not in text
