"""The encyclopedia: its pages state its facts, its answers are exact, its questions need it all.

Facts are read back from the text of the pages and questions evaluated on those, one fact after
another, so that neither the generator's graph nor its evaluator has a say.
"""

import errno
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.errors import ConfigError, DataError, HanolError, UnknownNameError, WriteError
from hanol.worlds import (
    RELATIONS,
    Encyclopedia,
    GraphQuestion,
    WorldPage,
    evaluate_formalization,
    split_words,
)
from hanol.worlds._encyclopedia._schema import (
    ALIASES,
    DISTRACTORS,
    INTRODUCTIONS,
    MONTHS,
)  # private: the words that pages may contain

Triple = tuple[str, str, str]

SEED = st.integers(0, 2**40)
NAME = r"[A-Z][a-z]+(?: [A-Z][a-z]+){1,2}"
VALUE = {
    "entity": rf"{NAME}(?:(?:, | and ){NAME})*",
    "word": "[a-z]+",
    "number": r"\d\d \d\d",
    "date": rf"\d\d? (?:{'|'.join(MONTHS)}) 19\d\d",
    "year": r"19\d\d",
}
STATEMENTS = [
    (
        relation,
        re.compile(
            re.escape(sentence)
            .replace(r"\{s\}", f"(?P<s>{NAME})")
            .replace(r"\{o\}", f"(?P<o>{VALUE[relation.kind]})")
        ),
    )
    for relation in RELATIONS
    for sentence in relation.sentences
]
KINDS_OF_QUESTIONS = [
    *({"hops": hops, "level": 0} for hops in (1, 2, 3, 4, 5)),
    *({"hops": hops, "level": 0, "described": True} for hops in (0, 1, 2, 5)),
    *({"hops": hops, "level": 1} for hops in (0, 1, 2, 3, 5)),
    *({"hops": hops, "level": 2} for hops in (0, 1, 2, 4)),
    {"hops": (1, 2), "level": 0, "sets": True},
    {"hops": (1, 3), "level": 1, "sets": True},
]


def plain(text: str) -> str:
    """The text without the addresses of its links."""
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)


def facts_of(page: WorldPage) -> Iterator[Triple]:
    """The facts that the text states; every sentence must be of exactly one kind."""
    first, *sentences = (f"{part}." for part in plain(page.text).rstrip(".").split(". "))
    assert first == INTRODUCTIONS[page.type].format(s=page.title)
    for sentence in sentences:
        matches = [
            (relation, match)
            for relation, pattern in STATEMENTS
            if (match := pattern.fullmatch(sentence))
        ]
        others = [filler.format(s=page.title) for filler in DISTRACTORS]
        others += [alias.format(s=page.title, o=page.alias) for alias in ALIASES if page.alias]
        assert len(matches) + others.count(sentence) == 1, sentence
        for relation, match in matches:
            assert relation.head == page.type
            assert match["s"] == page.title
            for value in re.split(", | and ", match["o"]):
                yield page.title, relation.name, value


def stated(world: Encyclopedia) -> set[Triple]:
    return {fact for page in world.pages for fact in facts_of(page)}


def triples_of(world: Encyclopedia) -> set[Triple]:
    return {edge.triple for edge in world.graph.edges if not edge.is_span}


def holds(asked: str, told: str, triple: Triple) -> bool:
    """Whether a fact is of the relation asked for, and its value in the span if one is told."""
    _, relation, value = triple
    if asked == relation:
        return told in ("", value)
    if asked not in (f"{relation} period", f"{relation} range"):
        return False
    least, most = (int(end.replace(" ", "")) for end in told.split(" and "))
    number = value[-4:] if asked.endswith("period") else value.replace(" ", "")
    return least <= int(number) <= most


def by_hand(triples: tuple[Triple, ...], facts: set[Triple]) -> set[str]:
    """What "?" can be: try every fact for every triple, from the first triple to the last."""

    def solve(rest: tuple[Triple, ...], known: dict[str, str]) -> Iterator[str]:
        if not rest:
            yield known["?"]
            return
        one, relation, other = rest[0]
        told = other[2:] if other.startswith("C@") else known.get(other, "")
        subject = one[2:] if one.startswith("C@") else known.get(one)
        for fact in facts:
            if subject in (None, fact[0]) and holds(relation, told, fact):
                yield from solve(rest[1:], {**known, one: fact[0], other: fact[2]})

    return set(solve(triples, {}))


@pytest.fixture(scope="module")
def world() -> Encyclopedia:
    return Encyclopedia(12345, 300, split="test")


@pytest.fixture(scope="module")
def facts(world: Encyclopedia) -> set[Triple]:
    return stated(world)


@pytest.fixture(scope="module")
def questions(world: Encyclopedia) -> list[GraphQuestion]:
    return [
        question
        for kind in KINDS_OF_QUESTIONS
        for question in world.questions(4, seed=3, **kind)  # type: ignore[arg-type]
    ]


def test_pages_state_the_facts_and_nothing_else(world: Encyclopedia, facts: set[Triple]) -> None:
    assert facts == triples_of(world)
    assert len(RELATIONS) == len({relation.name for relation in RELATIONS}) == 32
    assert {relation for _, relation, _ in facts} == {relation.name for relation in RELATIONS}
    for page in world.pages:
        assert 3 <= len(page.facts) <= 6
        told = {(page.title, fact.relation, value) for fact in page.facts for value in fact.values}
        assert told == set(facts_of(page))
        assert all(fact.sentence in page.text for fact in page.facts)


def test_answers_are_those_of_the_text(
    world: Encyclopedia, facts: set[Triple], questions: list[GraphQuestion]
) -> None:
    assert len(questions) == 4 * len(KINDS_OF_QUESTIONS)
    assert any(len(question.answers) > 1 for question in questions)
    for question in questions:
        assert question.answers
        assert by_hand(question.triples, facts) == set(question.answers)
        assert world.graph.answers(question.triples) == set(question.answers)
        assert world.is_right(question, ", ".join(sorted(question.answers)))


def test_answers_hold_where_relations_hold_in_both_directions(
    world: Encyclopedia, questions: list[GraphQuestion]
) -> None:
    graph = [edge.triple for edge in world.graph.edges]
    for question in questions:
        assert evaluate_formalization(question.triples, graph) == set(question.answers)


def test_a_single_answer_unless_sets_are_asked_for(world: Encyclopedia) -> None:
    for question in world.questions(200, hops=(1, 2, 3, 4, 5), seed=8):
        assert len(question.answers) == 1


def test_no_part_of_a_description_is_enough(
    facts: set[Triple], questions: list[GraphQuestion]
) -> None:
    by_level = {level: [q for q in questions if q.level == level] for level in (0, 1, 2)}
    for level, number in ((1, 2), (2, 3)):
        for question in by_level[level]:
            assert question.clauses
            assert len(question.clauses) == number
            chain = question.triples[number:]
            assert question.clauses + chain == question.triples
            start = tuple(("?", relation, value) for _, relation, value in question.clauses)
            assert by_hand(start, facts) == {question.entities[0]}
            for size in range(1, number):
                for part in combinations(question.clauses, size):
                    assert by_hand(part + chain, facts) > set(question.answers)
    assert all(
        any(name.endswith((" period", " range")) for _, name, _ in question.clauses)
        for question in by_level[2]
    )


def test_the_path_leads_to_the_answer_and_only_its_last_page_tells(
    world: Encyclopedia, questions: list[GraphQuestion]
) -> None:
    for question in questions:
        pages = [world.page(address) for address in question.path]
        assert tuple(page.title for page in pages) == question.entities
        assert len(pages) == max(1, question.hops) == max(1, len(question.relations))
        assert all(f"]({after.address})" in page.text for page, after in pairwise(pages))
        for answer in question.answers:
            assert answer in plain(pages[-1].text)
            assert all(answer not in plain(page.text) for page in pages[:-1])
        told = {value[2:] for _, _, value in question.clauses}
        assert not told & set(question.answers)
        for page in world.pages:
            if page.title in told and question.hops:
                assert all(answer not in plain(page.text) for answer in question.answers)


def test_questions_in_words(world: Encyclopedia, questions: list[GraphQuestion]) -> None:
    for question in questions:
        asked = question.entities[0]
        if question.clauses:
            assert asked not in question.text
            asked = f"the {world.page(question.path[0]).type} whose "
            assert all(clause[2][2:] in question.text for clause in question.clauses)
        for relation in question.relations:
            asked = f"the {relation} of {asked}"
        assert asked in question.text
    assert len({question.text for question in questions}) == len(questions)


def test_questions_are_decided_by_the_seed(world: Encyclopedia) -> None:
    again = Encyclopedia(12345, 300, split="test")
    for level in (0, 1, 2):
        first = world.questions(6, level=level, seed=1)
        assert first == again.questions(6, level=level, seed=1)
        assert first[:3] == world.questions(3, level=level, seed=1)
        assert first != world.questions(6, level=level, seed=2)


def test_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from hanol.worlds import Encyclopedia;"
        "w = Encyclopedia(5, 120, num_distractors=3);"
        "q = [w.questions(20, level=l, described=True) for l in (0, 1)];"
        "q += [w.questions(20, hops=(1, 5), sets=True)];"
        "told = [(x.text, sorted(x.answers), x.triples, x.path) for part in q for x in part];"
        "print(hashlib.sha256(repr((w.pages, told, w.vocabulary())).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_the_golden_world() -> None:
    """Worlds are named by their seeds in reports: the same seed must stay the same world."""
    world = Encyclopedia(0, 20)
    text = "".join(f"# {page.title}\n\n{plain(page.text)}\n" for page in world.pages)
    told = "".join(question.text for question in world.questions(10))
    assert hashlib.sha256((text + told).encode()).hexdigest()[:16] == "dc1fdd64c14e7562"


def test_names_are_of_one_split_and_mostly_of_one_world() -> None:
    names = {
        (split, seed): {
            name
            for page in Encyclopedia(seed, 1000, split=split).pages
            for name in (page.title, page.alias)
            if name
        }
        for split in ("train", "dev", "test")
        for seed in (1, 2)
    }
    for (one, other), (first, second) in zip(
        combinations(names, 2), combinations(names.values(), 2), strict=True
    ):
        if one[0] != other[0]:
            assert not first & second
        assert len(first & second) < 0.03 * len(first)
    for each in names.values():
        pairs = {" ".join(name.split()[i : i + 2]) for name in each for i in (0, 1)}
        pairs = {pair for pair in pairs if " " in pair} - {n for n in each if n.count(" ") == 1}
        assert not pairs & each


def test_addresses_and_links() -> None:
    world = Encyclopedia(3, 200)
    by_address = {page.address: page for page in world.pages}
    assert len(by_address) == len({page.file_name for page in world.pages}) == 200
    for page in world.pages:
        assert world.page(page.address) is world.page(page.title) is page
        named = {value for fact in page.facts for value in fact.values if re.fullmatch(NAME, value)}
        links = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", page.text)
        assert re.fullmatch(r"doc:\d\d \d\d", page.address)
        assert {title for title, _ in links} == named
        assert all(by_address[link].title == title for title, link in links)


def test_the_vocabulary_is_closed(world: Encyclopedia, questions: list[GraphQuestion]) -> None:
    words = Encyclopedia.vocabulary()
    assert list(words) == sorted(set(words))
    assert len(words) < 1000
    known = set(words)
    for question in questions:
        assert set(split_words(question.text)) <= known
        assert all(set(split_words(answer)) <= known for answer in question.answers)
    long = Encyclopedia(9, 150, num_distractors=len(DISTRACTORS))
    for page in (*world.pages, *long.pages):
        shown = f"# {page.title} {page.text} {page.address}"  # files have "doc-12-34.md" for links
        assert set(split_words(shown)) <= known


@given(
    SEED,
    st.integers(16, 90),
    st.sampled_from(["train", "dev", "test"]),
    st.integers(0, 12),
)
@settings(max_examples=25, deadline=None)
def test_every_world_is_whole(seed: int, size: int, split: str, num_distractors: int) -> None:
    world = Encyclopedia(
        seed,
        size,
        split=split,  # type: ignore[arg-type]
        num_distractors=num_distractors,
    )
    assert len(world.pages) == size
    facts = stated(world)
    assert facts == triples_of(world)
    titles = {page.title for page in world.pages}
    edges = {frozenset((head, value)) for head, _, value in facts if value in titles}
    assert all(len(edge) == 2 for edge in edges)  # no page links to itself
    assert len(edges) > size - 1  # more than a tree: there are cycles
    reached, new = set[str](), {world.pages[0].title}
    while new:
        reached |= new
        new = set().union(*(edge for edge in edges if edge & new)) - reached
    assert reached == titles
    known = set(world.vocabulary())
    for page in world.pages:
        assert len(page.facts) <= 6
        assert set(split_words(f"# {page.title} {page.text}")) <= known
    for relation in RELATIONS:
        values = [(head, value) for head, name, value in facts if name == relation.name]
        assert relation.is_set or len(values) == len({head for head, _ in values})
        if relation.is_symmetric:
            assert all((value, head) in values for head, value in values)
    for question in world.questions(3, hops=(1, 2), seed=seed):
        assert by_hand(question.triples, facts) == set(question.answers)


def test_pages_grow_to_a_hundred_and_twenty_words() -> None:
    def mean_words(num_distractors: int) -> float:
        pages = Encyclopedia(1, 300, num_distractors=num_distractors).pages
        return sum(len(plain(page.text).split()) for page in pages) / len(pages)

    assert 35 < mean_words(1) < 60
    assert 105 < mean_words(7) < 135


def test_what_counts_as_right(world: Encyclopedia) -> None:
    def ends_in(*relations: str) -> GraphQuestion:
        asked = world.questions(300, hops=1, sets=True, seed=1)
        return next(q for q in asked if q.relations[-1] in relations)

    number, date = ends_in("population", "value"), ends_in("birthday", "opening")
    [told] = number.answers
    digits = told.replace(" ", "")
    for text in (digits, told, f"{digits[0]},{digits[1:]}", f"{digits}.0", f" {digits} [1]."):
        assert world.is_right(number, text), text
    for text in ("", str(int(digits) + 1), digits + "0", f"{digits} and 5", "unknown", "x" * 9999):
        assert not world.is_right(number, text), text
    [told] = date.answers
    day, month, year = told.split()
    iso = f"{year}-{MONTHS.index(month) + 1:02d}-{int(day):02d}"
    for text in (told, f"{month} {day}, {year}", iso, f"{day} {month.upper()} {year}"):
        assert world.is_right(date, text), text
    for text in (f"{month} {year}", year, f"{int(day) + 1} {month} {year}"):
        assert not world.is_right(date, text), text


def test_names_and_sets_that_count_as_right(world: Encyclopedia) -> None:
    asked = world.questions(300, hops=1, sets=True, seed=1)
    several = next(question for question in asked if len(question.answers) == 3)
    one, two, three = several.answers
    address = world.page(one).address
    for text in (f"{three}, {one} and {two}", f"{one}\n{two}\n{three}", f"{one}; {two}; {three}"):
        assert world.is_right(several, text), text
    assert world.is_right(several, f"[{one}]({address}), {two.upper()} and {three} [2].")
    for text in (one, f"{one} and {two}", f"{one}, {two}, {three} and {world.pages[0].title} X"):
        assert not world.is_right(several, text), text
    renamed = next(
        (question, page)
        for question in asked
        for page in world.pages
        if page.alias and question.answers == (page.title,)
    )
    assert world.is_right(renamed[0], f"the {renamed[1].alias}")


def test_pages_are_written_and_found_by_name(tmp_path: Path) -> None:
    retrieval = pytest.importorskip("hanol.retrieval")
    world = Encyclopedia(12, 100)
    files = world.write(tmp_path / "pages")
    assert [file.read_text("utf-8") for file in files] == [page.markdown for page in world.pages]
    with retrieval.Index.open(tmp_path / "pages") as index:
        index.add()
        titles = {info.document: info.title for info in index.documents()}
        assert titles == {page.file_name: page.title for page in world.pages}
        for page in world.pages[::5]:
            found = [hit.document for hit in index.search(page.title, 5, mode="bm25")]
            assert page.file_name in found
        for question in world.questions(10, seed=2):
            found = [hit.document for hit in index.search(question.entities[0], 5)]
            assert world.page(question.path[0]).file_name in found


def test_a_folder_with_other_pages_is_not_written_to(tmp_path: Path) -> None:
    Encyclopedia(1, 16).write(tmp_path)
    with pytest.raises(DataError, match="is not empty. Name a new folder"):
        Encyclopedia(2, 16).write(tmp_path)
    file = next(tmp_path.iterdir())
    with pytest.raises(WriteError, match="could not be written"):
        Encyclopedia(2, 16).write(file)


def test_a_full_disk_leaves_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = Path.write_text, []

    def write_three(self: Path, *args: str) -> int:
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(self)
        return write(self, *args)

    monkeypatch.setattr(Path, "write_text", write_three)
    with pytest.raises(WriteError, match="disk is full"):
        Encyclopedia(1, 16).write(tmp_path / "world")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_entities": 15}, "`num_entities` is 15, but must be from 16 to 5000."),
        ({"num_entities": 5001}, "`num_entities` is 5001"),
        ({"num_distractors": -1}, "`num_distractors` is -1, but must be from 0 to 12."),
        ({"split": "tests"}, "Did you mean 'test'?"),
    ],
)
def test_worlds_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(HanolError, match=re.escape(message)):
        Encyclopedia(1, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hops": 6}, "`hops` is 6, but must be from 0 to 5."),
        ({"hops": ()}, "`hops` is empty."),
        ({"hops": 0}, "`hops` is 0 and the start is named"),
        ({"level": 3}, "`level` is 3, but must be from 0 to 2."),
    ],
)
def test_questions_that_cannot_be(
    world: Encyclopedia, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        world.questions(1, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`num_questions` is 0"):
        world.questions(0)


def test_a_small_world_has_few_questions() -> None:
    with pytest.raises(DataError, match=r"Only \d+ of 1000 different questions .* more entities."):
        Encyclopedia(1, 16).questions(1000, hops=1)


def test_a_page_that_is_not_there(world: Encyclopedia) -> None:
    with pytest.raises(UnknownNameError, match="No page is named 'wiki:Nowhere'"):
        world.page("wiki:Nowhere")
