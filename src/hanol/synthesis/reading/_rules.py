"""Questions about a statement, by rule."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from hanol.synthesis.reading._lexicon import Lexicon
from hanol.synthesis.reading._patterns import ASKS, FIELDS, PARTS, RULES
from hanol.synthesis.reading._statements import Statement
from hanol.synthesis.reading._wording import WEAK, content, uncapital, window

_UNCLEAR = re.compile(
    r"(?<!Is )(?<!is )\b(?:it|he|she|they|them|this|these|those|his|her)\b|"
    r"\b(?:their|its|I)$"
)
_COUNTED = re.compile(rf"{PARTS['COUNT']} (?P<thing>[a-z]{{3,}}s)\b")
_MEASURED = re.compile(
    r"\b(?:a|an|the|with|to|of|and) (?P<what>(?:[a-z-]+ )?[a-z-]{4,}) (?:of|to|is|was|equals) "
    r"(?:about |around |approximately |nearly |over |at least |up to |exactly |only )?"
    r"(?P<n>[$€]?\d[\d,.]*\d|\d)"
)
_SHARE = re.compile(
    r"(?P<n>\d[\d.]*)\s?(?:%|percent|per cent) of (?:the |all |its |our )?(?P<what>[a-z]+)"
)
_NEXT_STEP = re.compile(r"(?:Then|Next|Now|Click|Choose|Select|Enter|Press)\b")
_NOT_VERBS = ("its", "as", "this", "was", "is", "has")


@dataclass(frozen=True)
class Draft:
    """A question before its passages are searched.

    Args:
        text: The question.
        kind: Which rule or model made it.
        statement: What answers it.
        answer: The sentences that answer it, one a line, without citations.
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

    def draft(
        kind: str, values: dict[str, Any], answer: str, exact: str = "", name: str = ""
    ) -> Draft:
        text = _clean(rng.choice(ASKS[kind]).format_map(values))
        return Draft(text, name or kind, statement, answer, text, exact)

    if statement.kind == "entry":
        yield from _entry(statement, topic, rng, draft)
    elif statement.kind == "row":
        yield from _row(statement, rng, draft)
    else:
        yield from _named(statement, lexicon, draft)
        yield from _by_pattern(statement, lexicon, rng)
        yield from _by_words(statement, rng, draft)


def _by_pattern(statement: Statement, lexicon: Lexicon, rng: Random) -> Iterator[Draft]:
    for kind, pattern, ways in RULES:
        if (match := pattern.fullmatch(statement.core)) is None:
            continue
        found = _values(match, lexicon)
        if found is None or (kind == "who" and not lexicon.is_person(found["head"].split()[-1])):
            continue
        text = _clean(rng.choice(ways).format_map(found))
        is_clear = not _UNCLEAR.search(text) and text.count("(") == text.count(")")
        if 2 <= len(text.split()) <= 30 and is_clear:
            answer = _with_next(statement) if kind in ("how", "condition") else statement.answer
            exact = found.get("n") or found.get("date", "")
            yield Draft(text, kind, statement, answer, text, exact)


def _values(match: "re.Match[str]", lexicon: Lexicon) -> dict[str, str] | None:
    """What the ways of a rule may name; None where it would make no question."""
    found = {name: (text or "").strip() for name, text in match.groupdict().items()}
    verb = found.get("verb") or found.get("past", "")
    if verb:
        base = lexicon.base(verb)
        if base is None or (found.get("rest") and verb in _NOT_VERBS):
            return None
        found["base"] = base
    if np := found.get("np", ""):
        first, last = np.split()[0], np.split()[-1]
        is_thing = first != uncapital(first) and last.islower()
        found["which"] = f"Which {last}" if is_thing else "What"
        found["np"] = uncapital(np)
    if "rest" in found and "tail" not in found:
        found["tail"] = " ".join(found["rest"].split()[:6])
    found["me"] = _to_me(uncapital(found.get("if") or found.get("do", "")))
    is_past = verb == "had" or verb.endswith("ed")
    found["do"] = "did" if is_past else "do" if verb == found.get("base") else "does"
    found["Aux"] = found.get("aux", "").capitalize()
    return found


def _by_words(statement: Statement, rng: Random, draft: Any) -> Iterator[Draft]:
    """Questions from words of the sentence, without knowing how it is built."""
    core, answer = statement.core.rstrip("."), statement.answer
    for kind, pattern in (("count", _COUNTED), ("value", _MEASURED), ("share", _SHARE)):
        if match := pattern.search(core):
            words = f"{core[: match.start()]} {core[match.end() :]}".split()
            values = {**match.groupdict(), "words": window(words, rng, 6)}
            yield draft(kind, values, answer, match["n"], "number")
    words = core.split()
    found = window(words, rng, rng.randint(6, 10))
    if len(words) >= 9 and len(content(found)) > 2:
        yield draft("keywords", {"words": found}, answer)


def _named(statement: Statement, lexicon: Lexicon, draft: Any) -> Iterator[Draft]:
    """The function, option or heading above a sentence."""
    name, words = statement.item or statement.heading, (statement.heading or " ").split()
    if not statement.is_first or not name:
        return
    if statement.item:
        first, _, rest = statement.core.partition(" ")
        base = lexicon.base(first)
        if base is None or len(rest.split()) < 3 or rest.startswith(("is ", "are ")):
            return
        is_third = first.endswith("s") and base != first.lower()
        verb = first.lower() if is_third else _third(first.lower())
        answer, rest = f"{name} {verb} {rest}", rest.rstrip(".")
        short = re.split(r"[,;(]| and | if | when | that | which ", rest)[0].strip()
        noun = "function" if name.endswith("()") else "option"
        values = {"name": name, "verb": verb, "base": base, "rest": rest, "short": short}
        yield draft("which item", values | {"noun": noun}, answer, name)
        yield draft("item", values, answer)
    elif len(words) <= 8 and not name.isupper() and "=" not in name and words[0] not in WEAK:
        rest, base = " ".join(words[1:]), lexicon.base(words[0])
        is_verb = words[0].endswith("ing") or (base == words[0].lower() and len(words) > 2)
        rest = _to_me(rest[:1].lower() + rest[1:] if rest[1:2].islower() else rest)
        values = {"name": name, "lower": name.lower(), "base": base or "", "rest": rest}
        kind = "do heading" if base and rest and is_verb else "heading"
        yield draft(kind, values, _with_next(statement), name="heading")


def _entry(statement: Statement, topic: str, rng: Random, draft: Any) -> Iterator[Draft]:
    """A field of a profile or a word of a glossary."""
    name, _, text = statement.text.partition(": ")
    text = text.strip().rstrip(".")
    values = {"name": name, "lower": name.lower(), "rest": text, "topic": topic}
    if topic and name[0].isupper() and name != topic:
        field = (name[0].lower() + name[1:] if name[1:2].islower() else name).replace(" - ", " ")
        is_one = len(field.split()) < 4 and field[-1] != "s"
        answer = f"The {field} of {topic} is {text}." if is_one else f"{topic}, {field}: {text}."
        made: Draft = draft("field", values | {"field": field}, answer, text)
        own = FIELDS.get(name.removesuffix(" - name").lower())
        if own and rng.random() < 0.5:
            asked = rng.choice(own).format_map(values)
            made = Draft(asked, "field", statement, answer, made.asked, text)
        yield made
    elif re.fullmatch(r"[a-z][a-z -]+", name) and text[0].islower() and len(text.split()) > 4:
        values["a"] = "an" if name[0] in "aeiou" else "a"
        yield draft("word", values, f"{name}: {text}.")
        yield draft("which word", values, f"{name}: {text}.", name)
    elif len(text.split()) > 3:
        yield draft("entry", values, f"{name}: {text}.", name)


def _row(statement: Statement, rng: Random, draft: Any) -> Iterator[Draft]:
    """A row of a table by its label, perhaps with the name of a column."""
    text, cells = statement.text, statement.text.split(" | ")
    bare = re.sub(r"\s*[-−\[]?\d[\d.,]*%?\]?", "", text).strip()
    label = re.sub(r"\(.*", "()", cells[0] if len(cells) > 1 else bare)
    if not 2 < len(label) < 60 or len(text.split()) > 45 or len(text) < len(label):
        return
    about = f" {statement.heading.lower()}" if statement.heading and rng.random() < 0.3 else ""
    columns = [name for name in re.split(r" \| | ", statement.item) if name.isalpha()]
    values = {"name": label, "about": about, "column": rng.choice(columns or ["value"])}
    has_numbers = re.search(r"\d", text[len(label) :]) and len(cells) != 2
    answer = text.replace(" | ", ": ", 1).rstrip(".") + "."
    yield draft("numbers" if has_numbers else "row", values, answer, name="row")


def _with_next(statement: Statement) -> str:
    """The sentence, and the one behind it where that is the next step."""
    is_short = len(statement.answer.split()) + len(statement.after.split()) < 40
    goes_on = is_short and _NEXT_STEP.match(statement.after)
    return f"{statement.answer}\n{statement.after}" if goes_on else statement.answer


def _third(verb: str) -> str:
    """The form after "it": "copies" of "copy"."""
    ending = "es" if re.search("(?:s|x|ch|sh|o)$", verb) else "s"
    return re.sub("(?<![aeiou])y$", "ie", verb) + ending


def _to_me(text: str) -> str:
    text = re.sub(r"\byou are\b", "I am", text)
    text = re.sub(r"\b[Yy]ou\b(?! (?:a|the|to))", "I", text)
    return re.sub(r"\b[Yy]our\b", "my", text)


def _clean(text: str) -> str:
    text = re.sub(r"\s+([?.,])", r"\1", " ".join(text.split()))
    return text[:1].upper() + text[1:] if text.endswith("?") else text
