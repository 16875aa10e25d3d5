"""The factbook as pages with links and as a graph of facts."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from hanol.worlds._factbook._leads import Lead, lead_facts
from hanol.worlds._factbook._names import Names, fold, the
from hanol.worlds._factbook._profiles import FieldRule, most, numbers, profiles, rules
from hanol.worlds._graph import Edge, KnowledgeGraph

IS = "is"  # from the role that a country has for another to the country
NEIGHBOURS, NUM_NEIGHBOURS = "neighbours", "number of neighbours"
MOST_NEIGHBOURS = 5  # that have to be read for a superlative
_MOST_LINKS = 12  # of a page, lists of countries apart
_LISTS = ("Land boundaries, border countries", "Exports - partners", "Imports - partners")
_LINKED = ("People", "Geography", "Arts")  # topics whose titles are names rather than words
_WORD = re.compile(r"[^\W\d_][\w'’.-]*")


@dataclass(frozen=True)
class FactbookPage:
    """A profile or a lead: what it is about, its file, and its text with links to other pages."""

    title: str
    file_name: str
    markdown: str

    @property
    def address(self) -> str:
        """The name of its file."""
        return self.file_name


@dataclass(frozen=True)
class PageFact:
    """A fact as a page states it: its value with other names of it, or all neighbours; its line."""

    rule: FieldRule
    head: str
    values: Sequence[str]
    line: str

    @property
    def note(self) -> str:
        """The fact in a sentence."""
        head, value = the(self.head), self.values[0]
        if self.rule.name == NEIGHBOURS:
            said = f"{head} borders {', '.join(self.values)}."
        elif self.rule.name == NUM_NEIGHBOURS:
            said = f"{head} has {value} neighbour{'s' if value != '1' else ''}."
        else:
            is_country = self.rule.kind == "country"
            said = f"the {self.rule.name} of {head} is {the(value) if is_country else value}."
        return said[0].upper() + said[1:]


def role(name: str, title: str) -> str:
    """What a country has in the graph between itself and another, such as a trade partner.

    A relation of the graph holds in either direction. That of two countries does not, so it goes by
    way of something that only the first one has.
    """
    return f"{name} of {title}"


def role_of_two(words: str) -> str:
    """The relation of a pair of countries to the one that has more of something."""
    return f"the one with the {words}"


def neighbour_with(words: str) -> str:
    """The relation of a country to the neighbour with the most or least of something."""
    return f"neighbour with the {words}"


class Book:
    """Pages and facts.

    Args:
        leads: Leads to add; those about countries that have a profile are left out.
    """

    def __init__(self, leads: Iterable[Lead]) -> None:
        self.profiles = profiles()
        names = [(name, p.title) for p in self.profiles.values() for name in p.names]
        self.countries = Names(names, have_short=True)
        about = {fold(name) for name, _ in names}
        self.leads: Mapping[str, Lead] = {
            lead.title: lead
            for lead in leads
            if fold(lead.title.removesuffix(" (country)")) not in about
        }
        self.files = _file_names([*self.profiles, *self.leads])
        self.titles = {file: title for title, file in self.files.items()}
        self.facts: dict[str, dict[str, PageFact]] = {}
        for fact in (*self._of_profiles(), *self._of_leads()):
            self.facts.setdefault(fact.head, {})[fact.rule.name] = fact

    def _of_profiles(self) -> Iterator[PageFact]:
        for title, profile in self.profiles.items():
            for name, values in profile.facts.items():
                rule = rules()[name]
                yield PageFact(rule, title, values, profile.line(rule.label))

    def _of_leads(self) -> Iterator[PageFact]:
        people = ("People", "Uncategorized")
        makers = frozenset(lead.title for lead in self.leads.values() if lead.topic in people)
        for title, lead in self.leads.items():
            for name, value in lead_facts(lead, self.countries, makers):
                yield PageFact(rules()[name], title, [value], _sentence(lead.description))

    def near(self, title: str) -> Sequence[str]:
        """The neighbours of a country; none where its list is not whole."""
        fact = self.facts.get(title, {}).get(NEIGHBOURS)
        return () if fact is None else fact.values

    @cached_property
    def graph(self) -> KnowledgeGraph:
        """All facts; superlatives and comparisons of neighbours too."""
        pages = {title: self.files[title] for title in (*self.profiles, *self.leads)}
        return KnowledgeGraph([*self._stated(), *self._compared()], pages)

    def _stated(self) -> Iterator[Edge]:
        for title, found in self.facts.items():
            for name, fact in found.items():
                where = self.files[title], fact.line
                if name == NEIGHBOURS:
                    # Implied: what borders a country is no shortcut to what else it is to it.
                    for other in fact.values:
                        yield Edge(title, name, other, *where, is_implied=True)
                elif fact.rule.kind == "country" and title in self.profiles:
                    yield from self._role(title, name, fact.values[0], fact.line)
                else:
                    yield Edge(title, name, fact.values[0], *where)

    def _compared(self) -> Iterator[Edge]:
        for rule in rules().values():
            for words, largest in rule.measures.items():
                for title in self.profiles:
                    near = self.near(title)
                    best = most(self._sizes(near, rule), largest=largest)
                    if best is not None and 2 <= len(near) <= MOST_NEIGHBOURS:
                        yield from self._role(title, neighbour_with(words), best, "")
                    for other in near:
                        more = most(self._sizes([title, other], rule), largest=largest)
                        if more is not None and title < other:
                            pair = f"{title} and {other}"
                            yield Edge(pair, role_of_two(words), more, self.files[title], "")

    def _role(self, title: str, name: str, other: str, line: str) -> Iterator[Edge]:
        yield Edge(title, name, role(name, title), self.files[title], line)
        yield Edge(role(name, title), IS, other, self.files[other], line)

    def _sizes(self, titles: Iterable[str], rule: FieldRule) -> dict[str, float]:
        """The numbers of countries; none if one of them is not known."""
        found = {title: self.facts[title].get(rule.name) for title in titles}
        known = {title: numbers(fact.values[0])[0] for title, fact in found.items() if fact}
        return known if len(known) == len(found) else {}

    @cached_property
    def pages(self) -> tuple[FactbookPage, ...]:
        """The pages: profiles, then leads."""
        linker = _Linker(self)
        found = []
        for title, profile in self.profiles.items():
            parts, done = [f"# {title}"], {self.files[title]}
            for section, texts in profile.sections.items():
                lines = [
                    f"{label}: {linker(_sentence(text), done, is_list=label in _LISTS)}"
                    for label, text in texts.items()
                ]
                parts.append(f"## {section}\n\n" + "\n".join(lines))
            found.append(FactbookPage(title, self.files[title], "\n\n".join(parts) + "\n"))
        for title, lead in self.leads.items():
            said = [_sentence(lead.description)] if lead.description else []
            parts = [f"# {title}", *said, linker(lead.text, {self.files[title]})]
            found.append(FactbookPage(title, self.files[title], "\n\n".join(parts) + "\n"))
        return tuple(found)


@lru_cache(2)
def the_book(leads: tuple[Lead, ...]) -> Book:
    """The book, one for all worlds of a process: with leads, and without."""
    return Book(leads)


def _sentence(text: str) -> str:
    """A field with a full stop: what shows single sentences then shows single fields."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


class _Linker:
    """Makes links of names of pages, and none of a part of a longer name."""

    def __init__(self, book: Book) -> None:
        named = [title for title, lead in book.leads.items() if _is_name(lead)]
        files = {title: book.files[title] for title in (*book.profiles, *named) if len(title) > 3}
        for title, profile in book.profiles.items():
            short = (name for name in profile.names if name.isupper())
            files |= dict.fromkeys(short, book.files[title])
        self._by_word: dict[str, list[tuple[str, str]]] = {}
        for name in sorted(files, key=len, reverse=True):
            if (first := _WORD.match(name)) is not None:
                self._by_word.setdefault(first[0], []).append((name, files[name]))

    def __call__(self, text: str, done: set[str], *, is_list: bool = False) -> str:
        """A text of a page with links, to each page once; in a list of pages, to all of them."""
        parts, end = [], 0
        for word in _WORD.finditer(text):
            named = self._at(text, word.start(), word[0].rstrip(".'’-"))
            if word.start() < end or named is None or _is_part(text[end : word.start()]):
                continue
            name, file = named
            if is_list or (file not in done and len(done) <= _MOST_LINKS):
                done.add(file)
                parts += [text[end : word.start()], f"[{name}]({file})"]
                end = word.start() + len(name)
        return "".join([*parts, text[end:]])

    def _at(self, text: str, place: int, word: str) -> tuple[str, str] | None:
        """The name that begins at a word of a text, and its file."""
        for name, file in self._by_word.get(word, ()):
            end = place + len(name)
            if text.startswith(name, place) and not text[end : end + 1].isalnum():
                return name, file
        return None


def _is_name(lead: Lead) -> bool:
    """Whether a title is a name, which stands for the same in other texts, and not a word."""
    has_words = lead.topic == "Uncategorized" and " " in lead.title
    return lead.title[0].isupper() and (lead.topic in _LINKED or has_words)


def _is_part(before: str) -> bool:
    """Whether what comes before a name makes it a part of a longer one, such as New Jersey."""
    word = re.search(r"(\w+) $", before)
    return before.endswith("Gulf of ") or (word is not None and word[1][0].isupper())


def _file_names(titles: Iterable[str]) -> dict[str, str]:
    """A short name for the file of each title, in plain letters; numbers tell equal ones apart."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for title in titles:
        plain = base = re.sub(r"[^a-z0-9]+", "-", fold(title)).strip("-")[:80] or "page"
        number = 1
        while plain in taken:
            number += 1
            plain = f"{base}-{number}"
        taken.add(plain)
        found[title] = f"{plain}.md"
    return found
